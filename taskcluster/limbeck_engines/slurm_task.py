"""One task inside of its Slurm job: `python -m limbeck_engines.slurm_task --runs DIR TASK` or `… --array FILE`.

It runs the task as the local engine would and writes what becomes of it beside the task. Told that the job's time is
nearly over (SIGUSR1), it stops the task, which writes a checkpoint, and queues the job again.
"""

import argparse
import asyncio
import errno
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from limbeck_engines.artifacts import Layout, find_damage
from limbeck_engines.attempt import DISK_FULL, Attempt, Outcome, remove_work
from limbeck_engines.locks import FileLock
from limbeck_engines.machine import find_gpus
from limbeck_engines.processes import Guardian, Process
from limbeck_engines.slurm_client import Slurm, own_job
from limbeck_engines.slurm_files import CONTINUED, LOST, RETRY, STOPPED, Order, Run, State
from limbeck_engines.slurm_launch import StepProcess, launch_prefix
from limbeck_engines.task import COMPLETED, FAILED, REUSED
from pipeline.common.errors import EXIT_FAILED
from pipeline.common.progress import format_duration

MAX_RUNS = 5  # of a task that ends with an exit code worth a retry
_LOCK_PATIENCE = 120.0  # seconds; what is left of a dead node's run may hold a lock for a while
_LEAST_GRACE = 2.0
_SIGNAL_LATE = 0.5  # seconds that a signal may reach this process after its command
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class SlurmTask:
    """One run of a task, from its order to its end."""

    def __init__(self, layout: Layout, task_id: str) -> None:
        order = Order.read(layout, task_id)
        if order is None:
            sys.exit(f"error: {layout.runs(task_id).parent} has no task.json: is this the folder of runs?")
        self.layout, self.order, self.task, self.settings = layout, order, order.task, order.settings
        self.state = State.read(layout, task_id, order.submission) or State(order.submission)
        self.job = os.environ.get("SLURM_JOB_ID", "")
        self._began = time.time()
        self._attempt: Attempt | None = None
        self._lock: FileLock | None = None
        self._gpus: list[str] = []
        self._told: str | None = None  # to stop: CONTINUED when the job's time is nearly over, STOPPED by Slurm

    async def run(self) -> int:
        """The exit code of the job: 0 when the task is done, or queued again."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self._stop, CONTINUED)
        loop.add_signal_handler(signal.SIGTERM, self._stop, STOPPED)
        self._close_lost_runs()
        try:
            free = await self._wait_for_lock()
            if self._told == STOPPED:
                return EXIT_FAILED
            if not free:
                told = "its job's time was over before it began"
                return self._queue_again(told if self._told else "another task of the same digest is running")
            return 0 if self._take_finished() else await self._run_attempt()
        finally:
            if self._lock is not None:
                self._lock.release()

    def _stop(self, told: str) -> None:
        self._told = told if self._told != STOPPED else STOPPED
        if self._attempt is None:
            return
        if told == STOPPED:
            self._attempt.stop(max(_LEAST_GRACE, self.settings.kill_wait - 3.0))
        else:
            self._attempt.stop(max(_LEAST_GRACE, self.settings.signal_seconds - 10.0))

    def _close_lost_runs(self) -> None:
        """A run without an end was cut off; it worked as long as its log tells."""
        for run in self.state.runs:
            if run.end is None:
                log = self.layout.run(self.task.task_id, run.number) / "live.log"
                run.end, run.reason = LOST, "its node failed, or it was killed"
                run.finished = max(run.started, log.stat().st_mtime if log.exists() else run.started)

    async def _wait_for_lock(self) -> bool:
        """Take the digest's lock, so that no two tasks share a folder of checkpoints; False when another keeps it."""
        deadline = time.monotonic() + _LOCK_PATIENCE
        while time.monotonic() < deadline and self._told is None:
            try:
                self._lock = FileLock.acquire(self.layout.lock(self.task.digest))
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                print(f"{self.layout.root} has no locks between machines ({error}): going on without", flush=True)
                return True
            if self._lock is not None:
                return True
            await asyncio.sleep(1)
        return False

    def _take_finished(self) -> bool:
        """Whether an earlier run that could not say so, or a task of the same digest, has done the work already."""
        for task_id in (self.task.task_id, *self.order.twins):
            number = self.layout.newest_run(task_id)
            if number is None or find_damage(self.layout.run(task_id, number)) is not None:
                continue
            folder = self.layout.run(task_id, number)
            if json.loads((folder / "manifest.json").read_text(encoding="utf-8")).get("digest") != self.task.digest:
                continue
            self.state.folder = str(folder.relative_to(self.layout.root))
            self.state.source = None if task_id == self.task.task_id else task_id
            own = [run for run in self.state.runs if run.number == number] if self.state.source is None else []
            run = own[0] if own else self._new_run(number if self.state.source is None else -1)
            self._end(run, REUSED if self.state.source else COMPLETED, Outcome(0, None))
            return True
        return False

    def _new_run(self, number: int) -> Run:
        run = Run(number, time.time(), socket.gethostname(), self.job)
        self.state.runs.append(run)
        return run

    async def _run_attempt(self) -> int:
        newest = self.layout.newest_run(self.task.task_id)
        run = self._new_run(0 if newest is None else newest + 1)
        self._write()
        used = sum((each.finished or each.started) - each.started for each in self.state.runs[:-1])
        limit = self.task.payload.get("maxRunTime")
        if limit and used >= limit:
            return self._fail(run, Outcome(None, f"took longer than its maxRunTime of {format_duration(limit)}"))
        self._gpus = list(find_gpus()) if self.settings.gpus else []
        if len(self._gpus) < self.settings.gpus:
            found = f"only {len(self._gpus)}" if self._gpus else "none"
            reason = f"its job asked for {self.settings.gpus} GPUs on each node and sees {found} on {run.host}"
            return self._fail(run, Outcome(None, f"{reason}: see gpus and gres of {self.settings.worker_type}"))
        work = self._scratch(run.number)
        self._attempt = Attempt(
            self.task,
            run.number,
            self.layout,
            _cpus(),
            self._gpus,
            max(_LEAST_GRACE, self.settings.kill_wait - 3.0),
            work,
            limit - used if limit else None,
        )
        if self._told:
            self._stop(self._told)
        guardian = Guardian()
        try:
            outcome = await self._attempt.run(self._artifacts_of, lambda *started: self._start(guardian, *started))
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            resume = f"limbeck resume {self.order.group_id}"
            outcome = Outcome(None, f"the disk is full ({error.filename or work or self.layout.root}): then {resume}")
        finally:
            guardian.close()
            if work is not None:
                shutil.rmtree(work, ignore_errors=True)
        if outcome.reason is not None and self._told is None:
            # Slurm stops all processes of a job one after the other: what ended its command may be on its way.
            await asyncio.sleep(_SIGNAL_LATE)
        return self._decide(run, outcome)

    def _start(
        self, guardian: Guardian, command: list[str], folder: Path, environment: dict[str, str], log: int
    ) -> Process:
        prefix = launch_prefix(self.settings, self.task, self.job, len(self._gpus))
        # The command holds on to its digest even if this process dies.
        inherited = [self._lock.descriptor] if self._lock else []
        start = StepProcess if prefix else Process
        return start([*prefix, *self.settings.container, *command], folder, environment, log, inherited, guardian)

    def _scratch(self, number: int) -> Path | None:
        """A folder on the node's own disk to work in, where the profile names one."""
        if not self.settings.scratch:
            return None
        folder = Path(os.path.expandvars(self.settings.scratch)) / f"limbeck-{self.task.task_id}-{number}"
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed here
        return folder

    def _artifacts_of(self, task_id: str) -> tuple[str, Path] | None:
        source = self.order.sources.get(task_id)
        if source is None:
            return None
        folder = source.folder
        if folder is None:
            order = Order.read(self.layout, task_id)
            state = State.read(self.layout, task_id, order.submission) if order else None
            folder = state.folder if state else None
        if folder is None:
            newest = self.layout.newest_run(task_id)
            folder = str(self.layout.run(task_id, newest or 0).relative_to(self.layout.root))
        return source.label, self.layout.root / folder / "artifacts"

    def _decide(self, run: Run, outcome: Outcome) -> int:
        assert self._attempt is not None
        retries = sum(each.end == RETRY for each in self.state.runs)
        if outcome.reason is None:
            folder = self.layout.run(self.task.task_id, run.number)
            self.state.folder = str(folder.relative_to(self.layout.root))
            self._end(run, COMPLETED, outcome)
            remove_work(self.layout, self.task.task_id)
            shutil.rmtree(self.layout.checkpoints(self.task.digest), ignore_errors=True)
            return 0
        if self._attempt.stopped:
            shutil.rmtree(self._attempt.folder / "work", ignore_errors=True)
            if self._told == STOPPED:
                self._end(run, STOPPED, outcome)
                return EXIT_FAILED
            if outcome.may_retry:
                self._end(run, CONTINUED, outcome)
                return self._queue_again("its job's time was over; it goes on from its checkpoint", run, outcome)
            if self._time_is_over():
                assert self.settings.time_limit is not None
                allowed = format_duration(self.settings.time_limit)
                reason = (
                    f"needs longer than its job may run ({allowed}), and has no checkpoint to go on from: give the "
                    f"worker type {self.settings.worker_type} a longer time in the profile"
                )
                return self._fail(run, Outcome(outcome.exit_code, reason))
        elif not outcome.may_retry:
            return self._fail(run, outcome)
        if retries + 1 >= MAX_RUNS:
            return self._fail(run, Outcome(outcome.exit_code, f"{outcome.reason} (run {MAX_RUNS} times)"))
        self._end(run, RETRY, outcome)
        return self._queue_again(f"{outcome.reason}; runs again", run, outcome)

    def _time_is_over(self) -> bool:
        limit = self.settings.time_limit
        # Slurm looks at the clock about once in a minute, and signals rather too early than too late.
        return limit is not None and time.time() - self._began > limit - self.settings.signal_seconds - 90

    def _queue_again(self, why: str, run: Run | None = None, outcome: Outcome | None = None) -> int:
        self._write()
        print(f"queued again: {why}", flush=True)
        problem = Slurm().requeue(own_job())
        if problem is None:
            # The job is ended from outside now; there is nothing left to be told.
            for number in (signal.SIGTERM, signal.SIGUSR1):
                asyncio.get_running_loop().add_signal_handler(number, lambda: None)
            return 0
        exit_code = outcome.exit_code if outcome else None
        return self._fail(
            run or self._new_run(-1), Outcome(exit_code, f"{why}: but it cannot be queued again: {problem}")
        )

    def _fail(self, run: Run, outcome: Outcome) -> int:
        self._end(run, FAILED, outcome)
        print(f"error: {outcome.reason}", flush=True)
        return outcome.exit_code if outcome.exit_code and 0 < outcome.exit_code < 256 else EXIT_FAILED

    def _end(self, run: Run, end: str, outcome: Outcome) -> None:
        run.end, run.exit_code, run.reason, run.finished = end, outcome.exit_code, outcome.reason, time.time()
        self._write()

    def _write(self) -> None:
        self.state.write(self.layout, self.task.task_id)


def _cpus() -> int:
    """The processors of this node that are the job's."""
    return int(os.environ.get("SLURM_CPUS_ON_NODE") or len(os.sched_getaffinity(0)))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="limbeck_engines.slurm_task", description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="the folder of runs")
    parser.add_argument("--array", type=Path, help="task ids by index, of which SLURM_ARRAY_TASK_ID names one")
    parser.add_argument("task", nargs="?", help="id of a task")
    options = parser.parse_args(arguments)
    task_id = options.task
    if options.array:
        task_id = json.loads(options.array.read_text(encoding="utf-8"))[os.environ["SLURM_ARRAY_TASK_ID"]]
    return asyncio.run(SlurmTask(Layout(options.runs.resolve()), task_id).run())


if __name__ == "__main__":
    sys.exit(main())
