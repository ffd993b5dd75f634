"""Running one group: tasks start when what they depend on is done and the machine has room for them."""

import asyncio
import contextlib
import json
import shutil
import signal
import sqlite3
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck_engines.attempt import DISK_FULL, Attempt, Outcome, remove_work
from limbeck_engines.display import Display, RunningTask
from limbeck_engines.locks import FileLock
from limbeck_engines.machine import Machine, Slots
from limbeck_engines.processes import Guardian, Process
from limbeck_engines.recovery import recover, recover_dead_groups
from limbeck_engines.schedule import ReadyQueue, path_lengths
from limbeck_engines.store import GroupRow, Store
from limbeck_engines.task import (
    CANCELLED,
    COMPLETED,
    DONE,
    FAILED,
    INTERRUPTED,
    PENDING,
    REUSED,
    RUNNING,
    SKIPPED,
    Resources,
    Summary,
    Task,
)
from pipeline.common.errors import UserError

_LONGEST_BACKOFF = 60.0


@dataclass(frozen=True)
class Settings:
    """How patient an engine is; times in seconds."""

    max_runs: int = 5  # of a task that ends with an exit code worth a retry
    backoff: float = 2.0  # before the second run; doubles with each further one
    grace: float = 15.0  # between SIGTERM and SIGKILL
    refresh: float = 0.25  # between two looks at other engines, cancellation and the display


class Execution:
    """The tasks of a group that are not done yet, and those that run at this moment.

    Whoever makes one holds the group's lock. All happens in the thread that calls `run`, except for work on files.
    """

    def __init__(self, store: Store, machine: Machine, settings: Settings, display: Display, group: GroupRow) -> None:
        self._store, self._settings, self._display, self._group = store, settings, display, group
        self._layout = store.layout
        rows = store.tasks(group.group_id)
        self._states = {row.task_id: row.state for row in rows}
        self._tasks: dict[str, Task] = {row.task_id: row.task() for row in rows if row.state == PENDING}
        self._dependents: dict[str, list[str]] = {}
        self._waits_for: dict[str, int] = {}
        for task in self._tasks.values():
            unfinished = set(task.dependencies) & self._tasks.keys()
            self._waits_for[task.task_id] = len(unfinished)
            for dependency in sorted(unfinished):
                self._dependents.setdefault(dependency, []).append(task.task_id)
        lengths = path_lengths(self._tasks.values())
        self._queue = ReadyQueue(
            {task_id: (-lengths[task_id], position) for position, task_id in enumerate(self._tasks)}
        )
        self._machine, self._slots = machine, Slots(machine)
        self._resources: dict[str, Resources] = {}
        self._unfinished = set(self._tasks)
        self._elsewhere: list[str] = []  # ready, but another task of the same digest runs
        self._runs: Counter[str] = Counter()
        self._running: dict[str, Attempt] = {}
        self._attempts: set[asyncio.Task[None]] = set()
        self._stopping: str | None = None  # the state that the group will end in
        self._error: Exception | None = None
        self._wake = asyncio.Event()
        self._guardian = Guardian()

    def run(self) -> Summary:
        """Run until all is done that can be, or until stopped. Raises UserError when the disk is full."""
        started = time.monotonic()
        try:
            asyncio.run(self._run())
        finally:
            self._guardian.close()
            self._display.close()
        if self._error is not None:
            raise self._error
        summary = self._summary(time.monotonic() - started)
        self._display.end(summary)
        return summary

    async def _run(self) -> None:
        self._listen_to_signals()
        self._display.begin(self._group.name, Counter(self._states.values()))
        for task_id, count in self._waits_for.items():
            if count == 0:
                self._make_ready(task_id)
        ticking = asyncio.create_task(self._tick())
        while self._attempts or (self._unfinished and not self._stopping):
            try:
                self._dispatch()
            except Exception as error:
                self._halt(error)
            if self._attempts or (self._unfinished and not self._stopping):
                await self._wake.wait()
                self._wake.clear()
        ticking.cancel()
        self._settle()

    # From ready to done

    def _make_ready(self, task_id: str) -> None:
        task = self._tasks[task_id]
        resources, note = self._machine.fit(task.resources)
        self._resources[task_id] = resources
        available = len(self._machine.gpus)
        if resources.gpus > available:
            count = f"only {available}" if available else "none"
            plural = "s" if resources.gpus > 1 else ""
            self._fail(task, 0.0, None, f"needs {resources.gpus} GPU{plural}, and this machine has {count}")
            return
        if note and not self._runs[task_id]:
            self._display.note(f"{task.label} {note}")
        self._queue.push(task_id, resources)
        self._wake.set()

    def _dispatch(self) -> None:
        """Start every ready task that the machine has room for."""
        while not self._stopping and (task_id := self._queue.pop(self._slots.have)):
            task = self._tasks[task_id]
            lock = FileLock.acquire(self._layout.lock(task.digest))
            if lock is None:
                self._elsewhere.append(task_id)
                continue
            if self._reuse(task):
                lock.release()
                continue
            gpus = self._slots.take(self._resources[task_id])
            attempt = asyncio.create_task(self._attempt(task, lock, gpus))
            self._attempts.add(attempt)
            attempt.add_done_callback(self._attempt_done)

    def _attempt_done(self, attempt: asyncio.Task[None]) -> None:
        self._attempts.discard(attempt)
        self._wake.set()

    def _reuse(self, task: Task) -> bool:
        """Take another task's artifacts if one of the same digest was completed since this group was submitted."""
        stale = [row for row in self._store.running(task.digest) if self._store.group(row.group_id).engine == "local"]
        if stale:  # with the digest's lock in our hands, whoever ran these is dead
            recover(self._store, stale)
        done_by = self._store.lookup(task.digest, since=self._group.created)
        if done_by is None:
            return False
        reused_from = None if done_by == task.task_id else done_by
        self._set_state(task.task_id, REUSED, reused_from=reused_from, reason=None, finished=time.time())
        self._display.ended(task.label, REUSED, 0.0, None)
        self._release_dependents(task.task_id)
        return True

    async def _attempt(self, task: Task, lock: FileLock, gpus: list[str]) -> None:
        task_id, resources = task.task_id, self._resources[task.task_id]
        try:
            newest = self._layout.newest_run(task_id)
            number = 0 if newest is None else newest + 1
            assert resources.cpus != "all"
            attempt = Attempt(task, number, self._layout, resources.cpus, gpus, self._settings.grace)
            self._running[task_id] = attempt
            self._runs[task_id] += 1
            self._set_state(
                task_id, RUNNING, run=number, started=attempt.started, finished=None, exit_code=None, reason=None
            )
            self._display.started(task.label, number)

            def start(command: list[str], folder: Path, environment: dict[str, str], log: int) -> Process:
                # The task holds on to its digest even if this engine dies.
                process = Process(command, folder, environment, log, [lock.descriptor], self._guardian)
                self._store.update_task(task_id, pid=process.pid, pid_started=process.created)
                return process

            outcome = await attempt.run(self._artifacts_of, start, self._about_run)
            await self._finish(attempt, outcome)
        except Exception as error:
            self._halt(error)
        finally:
            self._running.pop(task_id, None)
            self._slots.give_back(resources, gpus)
            lock.release()

    async def _finish(self, attempt: Attempt, outcome: Outcome) -> None:
        task, seconds = attempt.task, time.time() - attempt.started
        ended = {"exit_code": outcome.exit_code, "finished": time.time(), "pid": None}
        if outcome.reason is None:
            self._set_state(task.task_id, COMPLETED, reason=None, **ended)
            self._display.ended(task.label, COMPLETED, seconds, None)
            self._release_dependents(task.task_id)
            await asyncio.to_thread(self._clean_up, task)
        elif attempt.stopped:
            state = CANCELLED if self._stopping == CANCELLED else PENDING
            reason = "cancelled" if state == CANCELLED else "interrupted"
            self._set_state(task.task_id, state, **{**ended, "reason": reason})
            self._display.ended(task.label, state, seconds, reason)
            await asyncio.to_thread(shutil.rmtree, attempt.folder / "work", ignore_errors=True)
        elif outcome.may_retry and self._runs[task.task_id] < self._settings.max_runs:
            delay = min(_LONGEST_BACKOFF, self._settings.backoff * 2 ** (self._runs[task.task_id] - 1))
            self._set_state(task.task_id, PENDING, **{**ended, "reason": outcome.reason})
            self._display.ended(task.label, PENDING, seconds, f"{outcome.reason}; runs again in {delay:.0f} s")
            asyncio.get_running_loop().call_later(delay, self._make_ready, task.task_id)
        else:
            self._fail(task, seconds, outcome.exit_code, outcome.reason)

    def _clean_up(self, task: Task) -> None:
        remove_work(self._layout, task.task_id)
        shutil.rmtree(self._layout.checkpoints(task.digest), ignore_errors=True)

    def _release_dependents(self, task_id: str) -> None:
        self._unfinished.discard(task_id)
        for dependent in self._dependents.get(task_id, ()):
            self._waits_for[dependent] -= 1
            if self._waits_for[dependent] == 0 and dependent in self._unfinished:
                self._make_ready(dependent)

    def _fail(self, task: Task, seconds: float, exit_code: int | None, reason: str) -> None:
        """Fail a task, and skip all that waits for it, directly or not."""
        skipped = [task.task_id]
        for task_id in skipped:  # grows while it is read
            self._unfinished.discard(task_id)
            skipped += [dependent for dependent in self._dependents.get(task_id, ()) if dependent in self._unfinished]
        with self._store.transaction():
            ended = {"exit_code": exit_code, "finished": time.time(), "pid": None}
            self._set_state(task.task_id, FAILED, reason=reason, **ended)
            for task_id in skipped[1:]:
                self._set_state(task_id, SKIPPED, reason=task.label)
        self._display.ended(task.label, FAILED, seconds, reason)

    def _set_state(self, task_id: str, state: str, **values: Any) -> None:
        self._store.update_task(task_id, state=state, **values)
        self._states[task_id] = state

    def _artifacts_of(self, task_id: str) -> tuple[str, Path] | None:
        row = self._store.resolve(task_id)
        return (row.label, self._layout.run(row.task_id, row.run or 0) / "artifacts") if row else None

    def _about_run(self, name: str) -> str:
        if name == "LIMBECK_DURATIONS":
            return json.dumps(self._store.durations(self._group.group_id))
        return self._group.config

    # Stopping

    def _listen_to_signals(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup leaves SIGHUP ignored
                asyncio.get_running_loop().add_signal_handler(number, self._interrupt)

    def _interrupt(self) -> None:
        if self._stopping:
            for attempt in self._running.values():
                attempt.kill()
            return
        self._display.note("stopping the running tasks; once more kills them at once")
        self._stop(INTERRUPTED)

    def _stop(self, state: str) -> None:
        self._stopping = self._stopping or state
        for attempt in self._running.values():
            attempt.stop()
        self._wake.set()

    def _halt(self, error: Exception) -> None:
        """Stop because the engine itself cannot go on."""
        full = isinstance(error, OSError) and error.errno in DISK_FULL
        full = full or (isinstance(error, sqlite3.OperationalError) and "full" in str(error))
        if full:
            error = UserError(
                f"the disk of {self._layout.root} is full: free some space; nothing that is done is lost, go on with: "
                f"limbeck resume {self._group.group_id}"
            )
        self._error = self._error or error
        self._stop(INTERRUPTED)

    async def _tick(self) -> None:
        """A few times a second: has someone cancelled the group, is a digest free again, what is there to show?"""
        seen = -1
        while True:
            try:
                version = self._store.data_version()
                if version != seen:
                    seen = version
                    if self._store.group(self._group.group_id).cancel_requested and not self._stopping:
                        self._stop(CANCELLED)
                if self._elsewhere:
                    # What is left of a dead engine's tasks may still hold on to their digests.
                    recover_dead_groups(self._store)
                for task_id in self._elsewhere:
                    self._make_ready(task_id)
                self._elsewhere.clear()
                running = [
                    RunningTask(attempt.task.label, attempt.started, attempt.log) for attempt in self._running.values()
                ]
                self._display.refresh(Counter(self._states.values()), running)
            except Exception as error:
                self._halt(error)
                return
            await asyncio.sleep(self._settings.refresh)

    def _settle(self) -> None:
        """Record what became of the tasks that are left when the engine stops."""
        state = CANCELLED if self._stopping == CANCELLED else PENDING
        # On a full disk this may fail too; the next engine then recovers the same from what is recorded.
        with contextlib.suppress(sqlite3.OperationalError), self._store.transaction():
            for task_id in self._unfinished:
                if self._states[task_id] not in (state, CANCELLED):
                    self._set_state(task_id, state, pid=None)

    def _summary(self, seconds: float) -> Summary:
        rows = self._store.tasks(self._group.group_id)
        counts = Counter(row.state for row in rows)
        if sum(counts[state] for state in DONE) == len(rows):
            state = COMPLETED
        else:
            state = self._stopping or (FAILED if counts[FAILED] else CANCELLED)
        failed = [(row.label, row.reason or "") for row in rows if row.state == FAILED]
        skipped = [(row.label, row.reason or "") for row in rows if row.state == SKIPPED]
        return Summary(self._group.group_id, self._group.name, state, counts, seconds, failed, skipped)
