"""The engine that is built in: one machine, one process per task, as many at once as there is room for."""

import dataclasses
import json
import os
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from limbeck_engines.artifacts import ArtifactError, read_manifest
from limbeck_engines.base import (
    CANCELLED,
    DONE,
    INTERRUPTED,
    PENDING,
    RUNNING,
    Engine,
    Summary,
    Task,
)
from limbeck_engines.display import Display
from limbeck_engines.execution import Execution, Settings
from limbeck_engines.locks import FileLock
from limbeck_engines.machine import Machine
from limbeck_engines.recovery import (
    group_lock_path,
    put_back,
    put_back_damaged,
    recover,
    recover_dead_groups,
)
from limbeck_engines.schedule import path_lengths
from limbeck_engines.store import GroupRow, Store, TaskRow
from pipeline.common.errors import UserError


@dataclass(frozen=True)
class GroupStatus:
    """A group and its tasks, in the order they were submitted in. `counts`: tasks by state."""

    group: GroupRow
    tasks: list[TaskRow]
    counts: Mapping[str, int]


class LocalEngine(Engine):
    """Runs groups on this machine and keeps all that it knows in `runs_dir`.

    `cpus`, `memory` (bytes) and `gpus` are what it may use, by default all there is. Several engines, in several
    processes, may share a folder; one engine belongs to one thread.
    """

    def __init__(
        self,
        runs_dir: Path,
        cpus: int | None = None,
        memory: int | None = None,
        gpus: int | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.store = Store(runs_dir)
        self.machine = Machine.detect(cpus, memory, gpus)
        self._settings = settings or Settings()

    def submit(self, group_id: str, name: str, tasks: list[Task], config_text: str) -> None:
        _check_id("group", group_id)
        known = {task.task_id for task in tasks}
        labels = Counter(task.label for task in tasks)
        for task in tasks:
            _check_task(task)
            if labels[task.label] > 1:
                raise UserError(f"{labels[task.label]} tasks of group {group_id} have the label {task.label}")
            for dependency in task.dependencies:
                if dependency not in known and self.store.find_task(dependency) is None:
                    raise UserError(f"{task.label} depends on the task {dependency}, which was never submitted")
        path_lengths(tasks)
        self.store.add_group(group_id, name, config_text, tasks)

    def run(self, group_id: str, display: Display | None = None) -> Summary:
        return self._run(group_id, display or Display(), again=False)

    def resume(self, group_id: str, display: Display | None = None) -> Summary:
        return self._run(group_id, display or Display(), again=True)

    def _run(self, group_id: str, display: Display, again: bool) -> Summary:
        group = self.store.group(group_id)
        # A little patience: `status` in another process holds the lock for a moment.
        lock = FileLock.acquire(group_lock_path(self.store, group_id), patience=0.5)
        if lock is None:
            raise UserError(f"group {group_id} is already running, in process {group.engine_pid}")
        try:
            recover_dead_groups(self.store)
            recover(self.store, [row for row in self.store.tasks(group_id) if row.state in (RUNNING, PENDING)])
            if again:
                put_back(self.store, group_id)
            for label, damage in put_back_damaged(self.store, group_id):
                display.note(f"{label} runs again: {damage}")
            self.store.update_group(group_id, state=RUNNING, cancel_requested=0, engine_pid=os.getpid())
            summary = Execution(self.store, self.machine, self._settings, display, self.store.group(group_id)).run()
            self.store.update_group(group_id, state=summary.state, cancel_requested=0)
            return summary
        except sqlite3.OperationalError as error:
            raise UserError(f"{self.store.layout.database} cannot be written: {error}") from error
        finally:
            lock.release()

    def cancel(self, group_id: str) -> None:
        self.store.group(group_id)
        self.store.update_group(group_id, cancel_requested=1)
        # An engine that runs it hears of this and lets go of the group; if there is none, the lock is free.
        lock = FileLock.acquire(group_lock_path(self.store, group_id), patience=self._settings.grace + 30)
        if lock is None:
            pid = self.store.group(group_id).engine_pid
            raise UserError(f"group {group_id} does not stop: end process {pid}, then cancel it again")
        try:
            recover(self.store, [row for row in self.store.tasks(group_id) if row.state == RUNNING])
            unfinished = [row for row in self.store.tasks(group_id) if row.state == PENDING]
            with self.store.transaction():
                for row in unfinished:
                    self.store.update_task(row.task_id, state=CANCELLED, reason="cancelled", finished=time.time())
                if unfinished:
                    self.store.update_group(group_id, state=CANCELLED)
                self.store.update_group(group_id, cancel_requested=0)
        finally:
            lock.release()

    def status(self, group_id: str) -> GroupStatus:
        group, rows = self.store.group(group_id), self.store.tasks(group_id)
        if group.state == RUNNING and (lock := FileLock.acquire(group_lock_path(self.store, group_id))):
            # Its engine died. Say so, but leave it to the next engine to write it down.
            lock.release()
            group = dataclasses.replace(group, state=INTERRUPTED)
            rows = [
                dataclasses.replace(row, state=PENDING, reason="its engine died") if row.state == RUNNING else row
                for row in rows
            ]
        return GroupStatus(group, rows, Counter(row.state for row in rows))

    def log_path(self, task_id: str) -> Path:
        row = self._resolve(task_id)
        if row.run is None:
            raise UserError(f"{row.label} ({task_id}) has no log: it has not started yet")
        return self.store.layout.run(row.task_id, row.run) / "live.log"

    def artifacts(self, task_id: str) -> dict[str, Path]:
        """The artifacts of a completed task by name. Raises UserError when it is not completed."""
        row = self._resolve(task_id)
        if row.state not in DONE or row.run is None:
            raise UserError(f"{row.label} ({task_id}) has no artifacts: it is {row.state}")
        run = self.store.layout.run(row.task_id, row.run)
        try:
            manifest = read_manifest(run)
        except ArtifactError as error:
            raise UserError(f"the artifacts of {row.label} ({task_id}) are damaged: {error}") from error
        return {name: run / "artifacts" / name for name in manifest["artifacts"]}

    def artifact_path(self, task_id: str, name: str) -> Path:
        artifacts = self.artifacts(task_id)
        if name not in artifacts:
            names = ", ".join(artifacts) or "none"
            raise UserError(f"{self._resolve(task_id).label} ({task_id}) has no artifact {name}; it has: {names}")
        return artifacts[name]

    def _resolve(self, task_id: str) -> TaskRow:
        row = self.store.resolve(task_id)
        if row is None:
            raise UserError(f"there is no task {task_id} in {self.store.layout.root}")
        return row


def _check_id(what: str, name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UserError(f"{name!r} cannot be the id of a {what}: letters, digits, - and _ only")


def _check_task(task: Task) -> None:
    """Raise UserError unless the parts of a definition that this engine reads are well formed."""
    _check_id("task", task.task_id)
    if not re.fullmatch(r"[0-9a-f]{8,}", task.digest):
        raise UserError(f"{task.label}: its digest is {task.digest!r}, not a hexadecimal number")
    for command in task.commands:
        if not (isinstance(command, list) and command and all(isinstance(word, str) for word in command)):
            raise UserError(f"{task.label}: payload.command must be a list of commands, each a list of texts")
    for output in task.payload.get("artifacts", []):
        inside = all(
            isinstance(output.get(key), str) and not output[key].startswith("/") and ".." not in output[key].split("/")
            for key in ("path", "name")
        )
        if output.get("type") not in ("file", "directory") or not inside:
            raise UserError(f"{task.label}: an artifact needs type file or directory, a path and a name: {output}")
    try:
        fetches = json.loads(task.payload.get("env", {}).get("MOZ_FETCHES", "[]"))
        complete = all({"artifact", "task"} <= fetch.keys() for fetch in fetches)
    except (ValueError, TypeError, AttributeError):
        complete = False
    if not complete:
        raise UserError(f"{task.label}: MOZ_FETCHES must be a JSON list of mappings with artifact and task")
