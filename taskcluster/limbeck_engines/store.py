"""What became of every group and task: one SQLite file, `limbeck.sqlite` in the runs folder.

Any number of processes may have it open. Commits are ordered and survive a killed process; a power cut may take the
newest ones back, which is why an engine repairs the state from the artifacts on disk before it runs a group.
"""

import json
import logging
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

from limbeck_engines.artifacts import Layout, find_damage
from limbeck_engines.file_systems import file_system_type, is_network_file_system
from limbeck_engines.task import COMPLETED, PENDING, REUSED, RUNNING, Resources, Task
from pipeline.common.errors import UserError

logger = logging.getLogger(__name__)

_VERSION = 3
_SCHEMA = """
CREATE TABLE IF NOT EXISTS groups (
    group_id TEXT PRIMARY KEY, name TEXT NOT NULL, config TEXT NOT NULL, created REAL NOT NULL, state TEXT NOT NULL,
    cancel_requested INTEGER NOT NULL DEFAULT 0, engine_pid INTEGER, engine TEXT NOT NULL DEFAULT 'local', url TEXT);
CREATE TABLE IF NOT EXISTS tasks (
    task_id TEXT PRIMARY KEY, group_id TEXT NOT NULL REFERENCES groups, position INTEGER NOT NULL,
    label TEXT NOT NULL, digest TEXT NOT NULL, state TEXT NOT NULL, run INTEGER, exit_code INTEGER, reason TEXT,
    started REAL, finished REAL, pid INTEGER, pid_started REAL, reused_from TEXT,
    definition_json TEXT NOT NULL, dependencies_json TEXT NOT NULL, resources_json TEXT NOT NULL, job TEXT);
CREATE INDEX IF NOT EXISTS tasks_by_group ON tasks (group_id, position);
CREATE INDEX IF NOT EXISTS tasks_by_digest ON tasks (digest, state, finished);
CREATE INDEX IF NOT EXISTS tasks_by_label ON tasks (label, state, finished);
CREATE INDEX IF NOT EXISTS tasks_by_kind ON tasks (json_extract(definition_json, '$.tags.kind'), state, finished);
"""
# What each version added to tables that earlier ones made.
_ADDED = {
    3: (
        "ALTER TABLE groups ADD COLUMN engine TEXT NOT NULL DEFAULT 'local'",
        "ALTER TABLE groups ADD COLUMN url TEXT",
        "ALTER TABLE tasks ADD COLUMN job TEXT",
    )
}
# Of tasks whose artifacts are in the runs folder, or will be.
_IN_RUNS_FOLDER = "group_id IN (SELECT group_id FROM groups WHERE url IS NULL)"


@dataclass(frozen=True)
class GroupRow:
    """One submitted graph. `engine_pid` is the process that ran it last."""

    group_id: str
    name: str
    config: str
    created: float
    state: str
    cancel_requested: int
    engine_pid: int | None
    engine: str  # the name of the engine that it was handed to
    url: str | None  # where that engine shows it, if it does; its artifacts are then there and not in the runs folder


@dataclass(frozen=True)
class TaskRow:
    """One task. Times are seconds since the epoch; `run` is the number of its newest run, None before the first."""

    task_id: str
    group_id: str
    position: int
    label: str
    digest: str
    state: str
    run: int | None
    exit_code: int | None
    reason: str | None  # why it failed, was skipped (the failed task's label) or is pending again
    started: float | None
    finished: float | None
    pid: int | None
    pid_started: float | None
    reused_from: str | None  # the task whose artifacts stand for this one's
    definition_json: str
    dependencies_json: str
    resources_json: str
    job: str | None  # what its engine calls it

    @property
    def definition(self) -> dict[str, Any]:
        definition: dict[str, Any] = json.loads(self.definition_json)
        return definition

    @property
    def dependencies(self) -> list[str]:
        dependencies: list[str] = json.loads(self.dependencies_json)
        return dependencies

    def task(self) -> Task:
        resources = Resources(**json.loads(self.resources_json))
        return Task(self.task_id, self.label, self.definition, tuple(self.dependencies), self.digest, resources)


class Store:
    """Groups and tasks of one runs folder. A store belongs to the thread that opened it.

    Raises UserError when the file is no database, or a newer version's.
    """

    def __init__(self, runs_dir: Path) -> None:
        self.layout = Layout(runs_dir.resolve())
        self.layout.root.mkdir(parents=True, exist_ok=True)
        path = self.layout.database
        # Autocommit: each statement is its own transaction unless `transaction` holds several together.
        self._connection = sqlite3.connect(path, timeout=30, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        try:
            # The write-ahead log is shared memory, which processes on several machines do not have.
            shared = is_network_file_system(file_system_type(self.layout.root))
            self._connection.execute(f"PRAGMA journal_mode = {'DELETE' if shared else 'WAL'}")
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if shared else 'NORMAL'}")
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if version < _VERSION:
                with self.transaction():
                    version = self._connection.execute("PRAGMA user_version").fetchone()[0]
                    for number in range(version + 1, _VERSION + 1) if version else ():
                        for statement in _ADDED.get(number, ()):
                            self._connection.execute(statement)
                    for statement in _SCHEMA.split(";"):
                        self._connection.execute(statement)
                    self._connection.execute(f"PRAGMA user_version = {_VERSION}")
        except sqlite3.DatabaseError as error:
            raise UserError(f"{path} cannot be used as the record of runs: {error}") from error
        if version > _VERSION:
            raise UserError(f"{path} was written by a newer version of Limbeck: update Limbeck, or use another folder")

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written inside becomes visible at once, or not at all."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    # Groups

    def add_group(
        self,
        group_id: str,
        name: str,
        config: str,
        tasks: Iterable[Task],
        engine: str = "local",
        url: str | None = None,
    ) -> None:
        """Record a group and its tasks, all pending. Raises UserError when one of the ids is taken."""
        rows = [
            (
                task.task_id,
                group_id,
                position,
                task.label,
                task.digest,
                PENDING,
                json.dumps(task.definition, ensure_ascii=False),
                json.dumps(task.dependencies),
                json.dumps(asdict(task.resources)),
            )
            for position, task in enumerate(tasks)
        ]
        try:
            with self.transaction():
                self._connection.execute(
                    "INSERT INTO groups (group_id, name, config, created, state, engine, url) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (group_id, name, config, time.time(), PENDING, engine, url),
                )
                self._connection.executemany(
                    "INSERT INTO tasks (task_id, group_id, position, label, digest, state, definition_json, "
                    "dependencies_json, resources_json) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    rows,
                )
        except sqlite3.IntegrityError as error:
            raise UserError(
                f"group {group_id}: it, or one of its tasks, has been submitted before ({error})"
            ) from error

    def group(self, group_id: str) -> GroupRow:
        """Raises UserError when there is no such group."""
        row = self._connection.execute("SELECT * FROM groups WHERE group_id = ?", (group_id,)).fetchone()
        if row is None:
            raise UserError(f"there is no group {group_id} in {self.layout.root}")
        return GroupRow(**row)

    def groups(self) -> list[GroupRow]:
        """All groups, newest first."""
        rows = self._connection.execute("SELECT * FROM groups ORDER BY created DESC, rowid DESC")
        return [GroupRow(**row) for row in rows]

    def update_group(self, group_id: str, **values: Any) -> None:
        columns = ", ".join(f"{column} = ?" for column in values)
        self._connection.execute(f"UPDATE groups SET {columns} WHERE group_id = ?", (*values.values(), group_id))

    def data_version(self) -> int:
        """A number that changes when another process has written something; cheap to ask for."""
        version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        return version

    # Tasks

    def task(self, task_id: str) -> TaskRow:
        """Raises UserError when there is no such task."""
        row = self.find_task(task_id)
        if row is None:
            raise UserError(f"there is no task {task_id} in {self.layout.root}")
        return row

    def find_task(self, task_id: str) -> TaskRow | None:
        row = self._connection.execute("SELECT * FROM tasks WHERE task_id = ?", (task_id,)).fetchone()
        return TaskRow(**row) if row else None

    def tasks(self, group_id: str) -> list[TaskRow]:
        """A group's tasks in the order they were submitted in."""
        return self._select("WHERE group_id = ? ORDER BY position", group_id)

    def update_task(self, task_id: str, **values: Any) -> None:
        columns = ", ".join(f"{column} = ?" for column in values)
        self._connection.execute(f"UPDATE tasks SET {columns} WHERE task_id = ?", (*values.values(), task_id))

    def put_tasks(self, rows: Iterable[TaskRow]) -> None:
        """Record tasks of a group as its engine knows them, new ones and known ones, all at once."""
        columns = [field.name for field in fields(TaskRow)]
        with self.transaction():
            self._connection.executemany(
                f"INSERT OR REPLACE INTO tasks ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
                [astuple(row) for row in rows],
            )

    def running(self, digest: str) -> list[TaskRow]:
        """The tasks of a digest, of whichever group of the runs folder, that are recorded as running."""
        return self._select(f"WHERE digest = ? AND state = ? AND {_IN_RUNS_FOLDER}", digest, RUNNING)

    def unfinished(self, digest: str) -> list[TaskRow]:
        """The tasks of a digest, of whichever group, that run or wait."""
        return self._select("WHERE digest = ? AND state IN (?, ?)", digest, RUNNING, PENDING)

    def resolve(self, task_id: str) -> TaskRow | None:
        """The task whose artifacts stand for this one's (mostly itself); None when there is no such task."""
        row = self.find_task(task_id)
        while row is not None and row.reused_from is not None:
            row = self.find_task(row.reused_from)
        return row

    # The index of finished work

    def completed(self, digest: str, since: float = 0.0) -> list[TaskRow]:
        """The completed tasks of a digest that finished at or after `since`, newest first, of the runs folder."""
        return self._select(
            f"WHERE digest = ? AND state = ? AND finished >= ? AND {_IN_RUNS_FOLDER} ORDER BY finished DESC",
            digest,
            COMPLETED,
            since,
        )

    def lookup(self, digest: str, since: float = 0.0) -> str | None:
        """The newest of these tasks whose artifacts are whole. One that is passed over is logged with the reason."""
        for row in self.completed(digest, since):
            damage = self.damage(row)
            if damage is None:
                return row.task_id
            logger.warning(f"{row.label} ({row.task_id}) cannot be reused: {damage}")
        return None

    def damage(self, row: TaskRow, verify: bool = False) -> str | None:
        """What is wrong with the artifacts of a finished task, as one sentence (see find_damage); None: nothing."""
        folder = self.run_folder(row.task_id)
        if folder is None:
            return "the task that made its artifacts is not known any more"
        return find_damage(folder, verify)

    def run_folder(self, task_id: str) -> Path | None:
        """The folder of the run whose artifacts stand for a task's; None when it has not run."""
        source = self.resolve(task_id)
        return None if source is None or source.run is None else self.layout.run(source.task_id, source.run)

    def done_by_label(self, label: str, limit: int) -> list[TaskRow]:
        """The tasks of a label that are done, whatever their digests, newest first: what a new one is compared with."""
        return self._select(
            "WHERE label = ? AND state IN (?, ?) ORDER BY finished DESC LIMIT ?", label, COMPLETED, REUSED, limit
        )

    def completed_of_kind(self, kind: str, limit: int) -> list[TaskRow]:
        """The tasks of a kind that the runs folder completed last, newest first: new ones will take about as much."""
        return self._select(
            f"WHERE json_extract(definition_json, '$.tags.kind') = ? AND state = ? AND {_IN_RUNS_FOLDER} "
            "ORDER BY finished DESC LIMIT ?",
            kind,
            COMPLETED,
            limit,
        )

    def run_tasks(self, group_id: str) -> dict[str, TaskRow]:
        """All that a group's result stands on, by label: its own tasks, what they read of earlier groups, and so on.

        Of two tasks of one label, the one nearer to the group's own is meant.
        """
        found: dict[str, TaskRow] = {}
        level, seen = self.tasks(group_id), set[str]()
        while level:
            for row in level:
                found.setdefault(row.label, row)
                seen.add(row.task_id)
            wanted = {dependency: None for row in level for dependency in row.dependencies if dependency not in seen}
            level = [row for row in map(self.find_task, wanted) if row is not None]
        return found

    def durations(self, group_id: str) -> dict[str, float]:
        """Seconds that the finished tasks of each stage took, of all that a group's result stands on."""
        seconds: dict[str, float] = {}
        for row in self.run_tasks(group_id).values():
            made = self.resolve(row.task_id)
            if made is not None and made.state == COMPLETED and made.started and made.finished:
                stage = str(row.definition.get("extra", {}).get("limbeck", {}).get("stage", row.label))
                seconds[stage] = seconds.get(stage, 0.0) + made.finished - made.started
        return seconds

    def _select(self, condition: str, *values: Any) -> list[TaskRow]:
        return [TaskRow(**row) for row in self._connection.execute(f"SELECT * FROM tasks {condition}", values)]
