"""What a runs folder knows, for the pages: read in a thread of its own, so that no page waits for another's disk."""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from limbeck_engines.artifacts import Layout
from limbeck_engines.base import FAILED, REUSED, RUNNING, Engine
from limbeck_engines.local import GroupStatus, LocalEngine
from limbeck_engines.store import GroupRow, Store, TaskRow
from pipeline.common.errors import UserError
from utils.serve.graph_layout import Drawing, draw

Answer = TypeVar("Answer")

_FRAMES = 16  # groups whose graphs are kept
_STALE = 5.0  # seconds after which a group is looked at again though nothing was written: its engine may have died


@dataclass(frozen=True)
class Node:
    """A task of a run's graph. `earlier`: it belongs to an earlier run, whose result this one uses."""

    task_id: str
    label: str
    kind: str
    group_id: str
    earlier: bool
    state: str  # when the graph was read; the state of one that is not `earlier` changes


@dataclass(frozen=True)
class Frame:
    """What of a run does not change: its tasks, with those of earlier runs that it stands on, and their drawing."""

    nodes: Mapping[str, Node]
    drawing: Drawing


class Session:
    """The record as one thread sees it, with what it has read of it so far."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.layout = Layout(runs.resolve())
        self._store: Store | None = None
        self._engines: dict[str, Engine] = {}
        self._frames: OrderedDict[str, Frame] = OrderedDict()
        self._statuses: dict[str, tuple[int, float, GroupStatus]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing has run in the folder yet."""
        return self._store is None and not self.layout.database.exists()

    @property
    def store(self) -> Store:
        """Raises UserError where nothing has run yet; a page makes no folders."""
        if self.is_empty:
            raise UserError(f"nothing has run in {self.runs} yet")
        if self._store is None:
            self._store = Store(self.runs)
        return self._store

    def engine(self, group: GroupRow) -> LocalEngine:
        """The engine that a group runs on."""
        engine = self._engines.get("local")
        if engine is None:
            engine = self._engines["local"] = LocalEngine(self.runs)
        assert isinstance(engine, LocalEngine)
        return engine

    def engine_of(self, task: TaskRow) -> LocalEngine:
        return self.engine(self.store.group(task.group_id))

    def status(self, group_id: str) -> GroupStatus:
        """A group and its tasks as they stand now. Raises UserError when there is no such group."""
        version, now = self.store.data_version(), time.monotonic()
        known = self._statuses.get(group_id)
        if known and known[0] == version and now - known[1] < _STALE:
            return known[2]
        status: GroupStatus = self.engine(self.store.group(group_id)).status(group_id)
        if len(self._statuses) > _FRAMES:
            self._statuses.clear()
        self._statuses[group_id] = (version, now, status)
        return status

    def frame(self, group_id: str) -> Frame:
        """A group's graph. Raises UserError when there is no such group."""
        frame = self._frames.get(group_id)
        if frame is None:
            self.store.group(group_id)
            rows = self.store.run_tasks(group_id).values()
            nodes = {
                row.task_id: Node(
                    row.task_id, row.label, row.task().kind, row.group_id, row.group_id != group_id, row.state
                )
                for row in rows
            }
            reads = {row.task_id: row.dependencies for row in rows}
            frame = Frame(nodes, draw({task_id: node.kind for task_id, node in nodes.items()}, reads))
            self._frames[group_id] = frame
            if len(self._frames) > _FRAMES:
                self._frames.popitem(last=False)
        return frame


class Records:
    """Asks a session's questions in its thread. `runs` is None where only a model is tried."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="records")
        self._session = Session(runs)

    async def ask(self, question: Callable[[Session], Answer]) -> Answer:
        """Answer in the thread of the record: quick questions only, since others wait."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, question, self._session)

    async def ask_slowly(self, question: Callable[[Session], Answer]) -> Answer:
        """Answer in another thread: for questions to engines elsewhere, and about large files."""
        return await asyncio.to_thread(lambda: question(Session(self.runs)))

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


def shown_state(row: TaskRow) -> str:
    """A task's state; what another task's artifacts stand for is reused, however it was recorded."""
    return REUSED if row.reused_from is not None else row.state


def duration(status: GroupStatus) -> float | None:
    """Seconds from the start of the first task to the end of the last, or to now while the group runs."""
    started = [row.started for row in status.tasks if row.started]
    if not started:
        return None
    if status.group.state == RUNNING:
        return time.time() - min(started)
    return max((row.finished for row in status.tasks if row.finished), default=min(started)) - min(started)


def counts_of(status: GroupStatus) -> Counter[str]:
    """A group's own tasks by state."""
    return Counter(shown_state(row) for row in status.tasks)


def failures(status: GroupStatus) -> list[tuple[TaskRow, int]]:
    """The failed tasks, and how many were skipped because of each."""
    skipped = Counter(row.reason for row in status.tasks if row.state == "skipped")
    return [(row, skipped[row.label]) for row in status.tasks if row.state == FAILED]
