"""What a runs folder knows, for the pages: read in a thread of its own, so that no page waits for another's disk."""

import asyncio
import logging
import re
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from limbeck_engines import engine_class
from limbeck_engines.artifacts import Layout
from limbeck_engines.base import Engine, GroupStatus
from limbeck_engines.runs_folder import RunsFolderEngine
from limbeck_engines.store import GroupRow, Store, TaskRow
from limbeck_engines.task import FAILED, PENDING, REUSED, RUNNING, SKIPPED
from pipeline.common.errors import TransientError, UserError
from utils.serve.graph_layout import Drawing, draw

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_FRAMES = 16  # groups whose graphs are kept
_STATUSES = 256  # groups whose states are kept
_KEPT = 128  # answers that never change
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
        self._has_files: dict[str, bool] = {}
        self._remembered: dict[str, tuple[GroupRow, Any]] = {}
        self._asked: dict[str, Future[GroupStatus]] = {}
        self._askers = ThreadPoolExecutor(2, thread_name_prefix="engines")

    def close(self) -> None:
        """Let go of the record. Not to be used afterwards."""
        for store in [self._store, *(engine.store for engine in self._engines.values())]:
            if store is not None:
                store.close()
        self._askers.shutdown(wait=False, cancel_futures=True)

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

    def engine(self, group: GroupRow) -> Engine:
        """The engine that a group was handed to."""
        if group.engine not in self._engines:
            self._engines[group.engine] = engine_class(group.engine)(self.layout.root)
        return self._engines[group.engine]

    def has_files(self, task: TaskRow) -> bool:
        """Whether a task's log and artifacts lie in the runs folder, or can be had from its engine only."""
        known = self._has_files.get(task.group_id)
        if known is None:
            known = issubclass(engine_class(self.store.group(task.group_id).engine), RunsFolderEngine)
            self._has_files[task.group_id] = known
        return known

    def engine_of(self, task: TaskRow) -> Engine:
        return self.engine(self.store.group(task.group_id))

    def status(self, group_id: str) -> GroupStatus:
        """A group and its tasks as they stand now. Raises UserError when there is no such group.

        Engines that have to ask elsewhere are asked in another thread: until they answer, what is known stands.
        """
        version, now = self.store.data_version(), time.monotonic()
        known = self._statuses.get(group_id)
        if known and known[0] == version and now - known[1] < _STALE:
            return known[2]
        group = self.store.group(group_id)
        try:
            attended = engine_class(group.engine).attended
            status = self.engine(group).status(group_id) if attended else self._ask_elsewhere(group)
        except (UserError, TransientError) as error:
            # Without its engine, what is recorded can still be shown.
            logger.warning(f"{group.name} ({group.group_id}) is shown as it was recorded: {error}")
            status = self._recorded(group_id)
        if len(self._statuses) > _STATUSES:
            self._statuses.clear()
        self._statuses[group_id] = (version, now, status)
        return status

    def _ask_elsewhere(self, group: GroupRow) -> GroupStatus:
        asked = self._asked.get(group.group_id)
        if asked is None or asked.done():
            if asked is not None and (error := asked.exception()):
                logger.warning(f"the engine of {group.name} ({group.group_id}) does not answer: {error}")
            self._asked[group.group_id] = self._askers.submit(_ask_engine, self.runs, group)
        return self._recorded(group.group_id)

    def _recorded(self, group_id: str) -> GroupStatus:
        rows = self.store.tasks(group_id)
        return GroupStatus(self.store.group(group_id), rows, Counter(row.state for row in rows))

    def of_group(self, group: GroupRow, read: Callable[[GroupStatus], Answer]) -> Answer:
        """What `read` makes of a group's status; remembered where all has ended, until the group itself changes."""
        known = self._remembered.get(group.group_id)
        if known is not None and known[0] == group:
            answer: Answer = known[1]
            return answer
        status = self.status(group.group_id)
        answer = read(status)
        if not any(state in (PENDING, RUNNING) for state in (group.state, *(row.state for row in status.tasks))):
            self._remembered[group.group_id] = (group, answer)
        return answer

    def frame(self, group_id: str) -> Frame:
        """A group's graph. Raises UserError when there is no such group."""
        frame = self._frames.get(group_id)
        if frame is None:
            self.store.group(group_id)
            rows = sorted(self.store.run_tasks(group_id).values(), key=lambda row: _natural(row.label))
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


def _ask_engine(runs: Path, group: GroupRow) -> GroupStatus:
    """Let an engine bring the record up to date. Called in a thread of its own, with a store of its own."""
    return engine_class(group.engine)(runs).status(group.group_id)


class Records:
    """Asks a session's questions in its thread."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="records")
        self._session = Session(runs)
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()

    async def ask(self, question: Callable[[Session], Answer]) -> Answer:
        """Answer in the thread of the record: quick questions only, since others wait."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, question, self._session)

    async def ask_slowly(self, question: Callable[[Session], Answer]) -> Answer:
        """Answer in another thread: for questions to engines elsewhere, and about large files."""

        def answer() -> Answer:
            session = Session(self.runs)
            try:
                return question(session)
            finally:
                session.close()

        return await asyncio.to_thread(answer)

    async def ask_once(self, key: Hashable, question: Callable[[Session], Answer]) -> Answer:
        """As ask_slowly, for what never changes: it is answered once for a key."""
        if key not in self._kept:
            self._kept[key] = await self.ask_slowly(question)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        answer: Answer = self._kept[key]
        return answer

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


def _natural(label: str) -> list[tuple[int, str]]:
    """Sorts 2/20 before 10/20."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", label)]


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
    skipped = Counter(row.reason for row in status.tasks if row.state == SKIPPED)
    return [(row, skipped[row.label]) for row in status.tasks if row.state == FAILED]
