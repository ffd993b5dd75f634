"""What a task's log says at its end: its progress while it runs, and why it failed."""

import os
import re
import signal
from pathlib import Path

ENGINE_MARK = "[limbeck] "  # begins the lines that the engine itself writes into a log

_ERROR = re.compile(r"^(?:[\w./-]+: )?error: (.+)$")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


def last_lines(path: Path, size: int = 1 << 12) -> list[str]:
    """The non-empty lines in a log's last `size` bytes, without the engine's own. No log: no lines.

    A carriage return ends a line too: progress bars overwrite themselves with it.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = (_CONTROL.sub("", line).rstrip() for line in text.replace("\r", "\n").split("\n"))
    return [line for line in lines if line and not line.startswith(ENGINE_MARK)]


def last_line(path: Path) -> str:
    """A running task's progress: the last line of its log, or nothing."""
    return next(reversed(last_lines(path)), "")


def failure_reason(path: Path, exit_code: int) -> str:
    """Why a task failed, in one line: its own `error: …`, or the last that it said and how it ended."""
    ending = _ending(exit_code)
    if exit_code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return ending
    lines = last_lines(path, 1 << 16)
    errors = [match[1] for line in lines if (match := _ERROR.match(line))]
    if errors:
        return errors[-1]
    return f"{lines[-1]} ({ending})" if lines else f"{ending}, and its log is empty"


def _ending(exit_code: int) -> str:
    # A shell tells of its command's death by a signal as 128 + the signal.
    number = -exit_code if exit_code < 0 else exit_code - 128
    if number == signal.SIGKILL:
        return "killed by signal 9 (out of memory?)"
    if exit_code < 0 or number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGTERM):
        return f"killed by signal {number} ({signal.strsignal(number) or 'unknown'})"
    return f"exit code {exit_code}"
