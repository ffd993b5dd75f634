"""What a preflight finds."""

from dataclasses import dataclass

OK, WARNING, ERROR = "ok", "warning", "error"
LEVELS = (OK, WARNING, ERROR)


@dataclass(frozen=True)
class Finding:
    """One line. `subject` is the key or the thing that was looked at; `message` says what was found and what to do."""

    level: str
    subject: str
    message: str


def ok(subject: str, message: str) -> Finding:
    return Finding(OK, subject, message)


def warning(subject: str, message: str) -> Finding:
    return Finding(WARNING, subject, message)


def error(subject: str, message: str) -> Finding:
    return Finding(ERROR, subject, message)
