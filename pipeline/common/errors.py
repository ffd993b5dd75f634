"""Errors that are meant for people, and the exit codes that engines understand."""

EXIT_FAILED = 1
EXIT_RETRY = 75  # EX_TEMPFAIL of sysexits.h: the same task may succeed when run again


class UserError(Exception):
    """Something a person can mend. The message is one sentence that names the thing and says what would be right."""


class TransientError(Exception):
    """Something that may pass by itself (a server that answers 503): the task ends with exit code 75 and is retried."""
