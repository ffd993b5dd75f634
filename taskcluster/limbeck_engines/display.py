"""What a person sees of a running group: a live table on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from limbeck_engines.logs import last_line
from limbeck_engines.task import (
    CANCELLED,
    COMPLETED,
    DONE,
    FAILED,
    INTERRUPTED,
    PENDING,
    REUSED,
    SKIPPED,
    STATES,
    Summary,
)
from pipeline.common.progress import format_duration

PROGRESS_INTERVAL = 30.0  # seconds between two progress lines of a task, where there is no terminal

_MARKS = {
    COMPLETED: ("done", "green"),
    REUSED: ("reused", "green"),
    FAILED: ("FAILED", "bold red"),
    SKIPPED: ("skipped", "yellow"),
    CANCELLED: ("cancelled", "yellow"),
    PENDING: ("stopped", "yellow"),
}


@dataclass(frozen=True)
class RunningTask:
    """A task that has a process at this moment. `started` is in seconds since the epoch."""

    label: str
    started: float
    log: Path


class Display:
    """Hears what happens to a group; this one shows nothing."""

    def begin(self, name: str, counts: Mapping[str, int]) -> None:
        """The group starts. `counts`: its tasks by state."""

    def started(self, label: str, run: int) -> None:
        """A task starts, for the `run`-th time (from 0)."""

    def ended(self, label: str, state: str, seconds: float, reason: str | None) -> None:
        """A task is completed, reused, failed, skipped, cancelled or stopped (pending again)."""

    def note(self, message: str) -> None:
        """Something else that a person may want to know."""

    def refresh(self, counts: Mapping[str, int], running: list[RunningTask]) -> None:
        """Called several times a second."""

    def end(self, summary: Summary) -> None:
        """The engine has stopped running the group."""

    def close(self) -> None:
        """Leave the terminal as it was. Called at the end, whatever happened."""


class PlainDisplay(Display):
    """A line for each start and end, and now and then one for each running task."""

    def __init__(self, stream: TextIO | None = None, interval: float = PROGRESS_INTERVAL) -> None:
        self._stream: TextIO | None = stream or sys.stdout
        self._interval = interval
        self._spoke: dict[str, float] = {}  # label -> when it last had a line

    def begin(self, name: str, counts: Mapping[str, int]) -> None:
        self.note(f"{name}: {_describe(counts)}")

    def started(self, label: str, run: int) -> None:
        self._spoke[label] = time.monotonic()
        self.note(f"started    {label}" + (f" (run {run + 1})" if run else ""))

    def ended(self, label: str, state: str, seconds: float, reason: str | None) -> None:
        self._spoke.pop(label, None)
        self.note(f"{_MARKS[state][0]:<10} {_describe_end(label, state, seconds, reason)}")

    def refresh(self, counts: Mapping[str, int], running: list[RunningTask]) -> None:
        now = time.monotonic()
        for task in running:
            if now - self._spoke.setdefault(task.label, now) >= self._interval:
                self._spoke[task.label] = now
                self.note(f"running    {task.label}: {last_line(task.log)}")

    def note(self, message: str) -> None:
        if self._stream is None:
            return
        try:
            print(f"{time.strftime('%H:%M:%S')} {message}", file=self._stream, flush=True)
        except (OSError, ValueError):
            # Nobody reads any more (a closed pipe or terminal). The tasks matter more than the telling.
            self._stream = None

    def end(self, summary: Summary) -> None:
        for line in summary_lines(summary):
            self.note(line)


class TerminalDisplay(Display):
    """Ended tasks scroll by; below them stand the counts and a line for each running task."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._name = ""
        self._began = time.monotonic()

    def begin(self, name: str, counts: Mapping[str, int]) -> None:
        self._name, self._began = name, time.monotonic()
        self._live.start()
        self.refresh(counts, [])

    def ended(self, label: str, state: str, seconds: float, reason: str | None) -> None:
        mark, style = _MARKS[state]
        self._print(Text(f"{mark:<10}", style).append(_describe_end(label, state, seconds, reason), "default"))

    def note(self, message: str) -> None:
        self._print(Text(message, "dim"))

    def refresh(self, counts: Mapping[str, int], running: list[RunningTask]) -> None:
        header = Text.assemble((self._name, "bold"), f"  {format_duration(time.monotonic() - self._began)}  ")
        header.append(_describe(counts))
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True, overflow="ellipsis", style="cyan", max_width=60)
        table.add_column(no_wrap=True, justify="right")
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1, style="dim")
        for task in running:
            elapsed = format_duration(max(0.0, time.time() - task.started))
            table.add_row(Text(task.label), elapsed, Text(last_line(task.log)))
        try:
            self._live.update(Group(header, table), refresh=True)
        except OSError:
            self._console.quiet = True  # the terminal is gone; see PlainDisplay.note

    def end(self, summary: Summary) -> None:
        self.close()
        for line in summary_lines(summary):
            self._print(Text(line))

    def close(self) -> None:
        try:
            self._live.stop()
        except OSError:
            self._console.quiet = True

    def _print(self, text: Text) -> None:
        try:
            self._console.print(text, highlight=False)
        except OSError:
            self._console.quiet = True


def open_display(stream: TextIO | None = None) -> Display:
    """The display that suits where the output goes (by default standard output)."""
    console = Console(file=stream or sys.stdout)
    return TerminalDisplay(console) if console.is_terminal else PlainDisplay(stream)


def summary_lines(summary: Summary) -> list[str]:
    """How a group ended, what failed and why, what was skipped because of it, and how to go on."""
    lines = [f"{summary.name}: {summary.state} after {format_duration(summary.seconds)}: {_describe(summary.counts)}"]
    for label, reason in summary.failed:
        lines.append(f"  failed: {label}: {reason}")
        skipped = [name for name, cause in summary.skipped if cause == label]
        if skipped:
            more = f" and {len(skipped) - 5} more" if len(skipped) > 5 else ""
            lines.append(f"    skipped because of it: {', '.join(skipped[:5])}{more}")
    if summary.state in (FAILED, CANCELLED, INTERRUPTED):
        lines.append(f"  nothing that is done is lost; go on with: limbeck resume {summary.group_id}")
    return lines


def _describe(counts: Mapping[str, int]) -> str:
    done = f"{sum(counts.get(state, 0) for state in DONE)} of {sum(counts.values())} done"
    reused = f" ({counts[REUSED]} reused)" if counts.get(REUSED) else ""
    others = [
        f"{counts[state]} {'waiting' if state == PENDING else state}"
        for state in STATES
        if state not in DONE and counts.get(state)
    ]
    return ", ".join([done + reused, *others])


def _describe_end(label: str, state: str, seconds: float, reason: str | None) -> str:
    if state in (COMPLETED, FAILED, PENDING, CANCELLED):
        label = f"{label} after {format_duration(seconds)}"
    if state == SKIPPED:
        return f"{label}, because {reason} failed"
    return f"{label}: {reason}" if reason else label
