"""A task's log, piece by piece: what is new since a page asked last, however long the log is."""

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from limbeck_engines.logs import ENGINE_MARK

FIRST = 1 << 16  # bytes of a log's end that a page begins with
_PIECE = 1 << 19  # bytes that are sent at once
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|[\x00-\x08\x0b-\x1f\x7f]")
_WRONG = re.compile(r"^(?:[\w./-]+: )?(?:error: |Traceback|\w*Error: )")


@dataclass(frozen=True)
class Piece:
    """Lines of a log as (text, what it is: "engine", "wrong" or ""), the bytes that they lie between, and the line that
    is being written. `size`: of the whole log in bytes; `at_end`: nothing of it is left.
    """

    start: int
    end: int
    size: int
    lines: list[tuple[str, str]]
    partial: str
    at_end: bool


def read_piece(path: Path, offset: int | None) -> Piece:
    """The whole lines from byte `offset` on (None: the end of the log). No log: nothing.

    A log that is shorter than `offset` was begun anew, and is read from its beginning.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            start = max(0, size - FIRST) if offset is None else offset * (offset <= size)
            file.seek(start)
            data = file.read(_PIECE)
    except FileNotFoundError:
        return Piece(0, 0, 0, [], "", True)
    if offset is None and start:
        # From a whole line on.
        skipped = data.find(b"\n") + 1
        start, data = start + skipped, data[skipped:]
    whole = data.rfind(b"\n") + 1
    if not whole and len(data) == _PIECE:
        whole = len(data)  # a line longer than that is shown in parts
    # What is not at the log's end is not the line being written.
    at_end = start + len(data) == size
    partial = data[whole:] if at_end else b""
    lines = data[:whole].decode("utf-8", "replace").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    writing, _ = clean(partial.decode("utf-8", "replace"))
    return Piece(start, start + whole, size, [clean(line) for line in lines], writing, at_end)


class RemoteLogs:
    """Logs that lie elsewhere, each fetched whole at most once in `period` seconds, whoever asks."""

    def __init__(self, period: float = 10.0, most: int = 16) -> None:
        self._period, self._most = period, most
        self._fetched: dict[str, tuple[float, list[str]]] = {}

    def lines(self, key: str, fetch: Callable[[], Iterable[str]]) -> list[str]:
        when, lines = self._fetched.get(key, (0.0, []))
        if not when or time.monotonic() - when > self._period:
            lines = list(fetch())
            self._fetched.pop(key, None)
            self._fetched[key] = time.monotonic(), lines
            while len(self._fetched) > self._most:
                self._fetched.pop(next(iter(self._fetched)))
        return lines


def from_lines(lines: Iterable[str], offset: int | None) -> Piece:
    """The same of a log that is elsewhere; offsets count its lines."""
    found = list(lines)
    start = offset if offset is not None and offset <= len(found) else 0
    return Piece(start, len(found), len(found), [clean(line.rstrip("\n")) for line in found[start:]], "", True)


def clean(line: str) -> tuple[str, str]:
    """A line as a terminal would show it in the end, without colours, and what it is."""
    # A progress bar overwrites itself.
    shown = next((part for part in reversed(line.split("\r")) if part.strip()), "")
    text = _CONTROL.sub("", shown).rstrip()
    if text.startswith(ENGINE_MARK):
        return text, "engine"
    return text, "wrong" if _WRONG.match(text) else ""
