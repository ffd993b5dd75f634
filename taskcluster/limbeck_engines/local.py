"""The engine that is built in: one machine, one process per task, as many at once as there is room for."""

import argparse
import contextlib
import dataclasses
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from limbeck_engines.base import GroupStatus
from limbeck_engines.display import Display
from limbeck_engines.execution import Execution, Settings
from limbeck_engines.locks import FileLock
from limbeck_engines.machine import Machine, parse_size
from limbeck_engines.recovery import (
    group_lock_path,
    put_back,
    put_back_damaged,
    recover,
    recover_dead_groups,
)
from limbeck_engines.runs_folder import RunsFolderEngine
from limbeck_engines.task import CANCELLED, INTERRUPTED, PENDING, RUNNING, Summary, Task
from pipeline.common.errors import UserError


class LocalEngine(RunsFolderEngine):
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
        super().__init__(runs_dir)
        self.machine = Machine.detect(cpus, memory, gpus)
        self._settings = settings or Settings()

    @classmethod
    def add_arguments(cls, parser: "argparse._ActionsContainer") -> None:
        parser.add_argument("--cpus", type=int, help="how many processors the run may use (default: all)")
        parser.add_argument(
            "--memory", type=parse_size, help="memory that the run may use, such as 16GB (default: all)"
        )

    @classmethod
    def from_options(cls, runs_dir: Path, options: argparse.Namespace) -> Self:
        return cls(runs_dir, cpus=options.cpus, memory=options.memory)

    def submit(self, group_id: str, name: str, tasks: list[Task], config_text: str) -> str:
        self.check_tasks(group_id, tasks)
        self.store.add_group(group_id, name, config_text, tasks)
        return group_id

    def run(self, group_id: str, display: Display | None = None) -> Summary:
        with self._hold(group_id):
            display = display or Display()
            for label, damage in put_back_damaged(self.store, group_id):
                display.note(f"{label} runs again: {damage}")
            self.store.update_group(group_id, state=RUNNING, cancel_requested=0, engine_pid=os.getpid())
            summary = Execution(self.store, self.machine, self._settings, display, self.store.group(group_id)).run()
            self.store.update_group(group_id, state=summary.state, cancel_requested=0)
            return summary

    def restart(self, group_id: str) -> None:
        with self._hold(group_id):
            put_back(self.store, group_id)

    @contextlib.contextmanager
    def _hold(self, group_id: str) -> Iterator[None]:
        """Nobody else runs the group meanwhile, and what dead engines left is recovered.

        Raises UserError when another process runs it.
        """
        group = self.store.group(group_id)
        # A little patience: `status` in another process holds the lock for a moment.
        lock = FileLock.acquire(group_lock_path(self.store, group_id), patience=0.5)
        if lock is None:
            raise UserError(f"group {group_id} is already running, in process {group.engine_pid}")
        try:
            recover_dead_groups(self.store)
            recover(self.store, [row for row in self.store.tasks(group_id) if row.state in (RUNNING, PENDING)])
            yield
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
