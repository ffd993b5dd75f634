"""One run of one task: inputs linked, commands run one after the other, outputs published."""

import asyncio
import errno
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from limbeck_engines.artifacts import ArtifactError, Layout, link_inputs, plan_inputs, publish
from limbeck_engines.logs import ENGINE_MARK, failure_reason
from limbeck_engines.processes import Process
from limbeck_engines.task import Task
from pipeline.common.progress import format_duration

# Variables that name files about the run that a task is of: seconds of each stage so far, the training config.
ABOUT_RUN = {"LIMBECK_DURATIONS": "durations.json", "LIMBECK_CONFIG": "training-config.yml"}
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `reason` is None when it is complete; `exit_code` is None when no command ended."""

    exit_code: int | None
    reason: str | None
    may_retry: bool = False


class Attempt:
    """Run number `number` of a task, with the processors and GPUs that it was given."""

    def __init__(
        self,
        task: Task,
        number: int,
        layout: Layout,
        cpus: int,
        gpus: list[str],
        grace: float,
        work: Path | None = None,
        limit: float | None = None,
    ) -> None:
        """`grace`: seconds between SIGTERM and SIGKILL. `work`: the task's folder while it runs, by default inside of
        the run's. `limit`: seconds that are left of its maxRunTime, by default all.
        """
        self.task, self.number = task, number
        self.folder = layout.run(task.task_id, number)
        self.work = work or self.folder / "work"
        self.log = self.folder / "live.log"
        self.started = time.time()
        self.stopped = False  # by the engine; not by itself and not for taking too long
        self._layout, self._cpus, self._gpus, self._grace = layout, max(1, cpus), gpus, grace
        self._limit = task.payload.get("maxRunTime") if limit is None else limit
        self._ending = False
        self._timed_out = False
        self._process: Process | None = None
        self._timers: list[asyncio.TimerHandle] = []

    async def run(
        self,
        artifacts_of: Callable[[str], tuple[str, Path] | None],
        start: Callable[[list[str], Path, dict[str, str], int], Process],
        about_run: Callable[[str], str] | None = None,
    ) -> Outcome:
        """Run the task to its end.

        `artifacts_of` gives a task's label and artifacts folder; `start` starts a command, with its working folder,
        environment and the descriptor that its output goes to; `about_run` gives the content of one of
        the files about the run as a whole (ABOUT_RUN), for a task whose command names it.
        Raises OSError when the disk is full, which is not the task's fault.
        """
        self.folder.mkdir(parents=True)
        with self.log.open("ab", buffering=0) as log:
            try:
                self._write(log, f"{self.task.label} ({self.task.task_id}), run {self.number}")
                outcome = await self._run(log, artifacts_of, start, about_run)
            except ArtifactError as error:
                outcome = Outcome(None, str(error))
            except OSError as error:
                if error.errno in DISK_FULL:
                    raise
                outcome = Outcome(None, f"{error.filename}: {error.strerror}" if error.filename else str(error))
            finally:
                for timer in self._timers:
                    timer.cancel()
            ending = f"failed: {outcome.reason}" if outcome.reason else "done"
            self._write(log, f"{ending} after {format_duration(time.time() - self.started)}")
        return outcome

    async def _run(
        self,
        log: BinaryIO,
        artifacts_of: Callable[[str], tuple[str, Path] | None],
        start: Callable[[list[str], Path, dict[str, str], int], Process],
        about_run: Callable[[str], str] | None,
    ) -> Outcome:
        work = self.work
        (work / "artifacts").mkdir(parents=True)
        fetches = self.task.payload.get("env", {}).get("MOZ_FETCHES")
        if fetches:
            links = list(plan_inputs(fetches, work / "fetches", artifacts_of))
            await asyncio.to_thread(link_inputs, links)
        environment = self._environment(work)
        if self.task.commands:
            Path(environment["LIMBECK_CHECKPOINTS"]).mkdir(parents=True, exist_ok=True)
        for name in ABOUT_RUN:
            if about_run and any(name in word for command in self.task.commands for word in command):
                Path(environment[name]).write_text(about_run(name), encoding="utf-8")
        if self._limit:
            self._timers.append(asyncio.get_running_loop().call_later(self._limit, self._time_out))
        for command in self.task.commands:
            self._write(log, f"$ {shlex.join(command)}")
            if self._ending:
                return self._failure(-signal.SIGTERM)
            try:
                self._process = start(command, work, environment, log.fileno())
            except OSError as error:
                return Outcome(None, f"cannot start {command[0]}: {error.strerror}")
            try:
                exit_code = await self._process.wait()
            finally:
                self._process.send(signal.SIGKILL)  # does nothing once it has ended
            if exit_code != 0:
                return self._failure(exit_code)
        outputs = self.task.payload.get("artifacts", [])
        description = {
            "task": self.task.task_id,
            "label": self.task.label,
            "digest": self.task.digest,
            "run": self.number,
        }
        if outputs:
            # Hashing large files must not hold up the other tasks.
            await asyncio.to_thread(publish, self.folder, outputs, description, work)
        else:
            publish(self.folder, outputs, description, work)
        return Outcome(0, None)

    def _failure(self, exit_code: int) -> Outcome:
        if self._timed_out:
            limit = format_duration(self.task.payload["maxRunTime"])
            return Outcome(exit_code, f"took longer than its maxRunTime of {limit}")
        codes = self.task.retry_codes
        may_retry = exit_code in codes or (exit_code < 0 and 128 - exit_code in codes)
        return Outcome(exit_code, failure_reason(self.log, exit_code), may_retry)

    def _environment(self, work: Path) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TASKCLUSTER_")}
        own = {name: str(value) for name, value in self.task.payload.get("env", {}).items()}
        # Already seen to; and a large one is more than the system lets an environment hold.
        own.pop("MOZ_FETCHES", None)
        return {
            **inherited,
            # A virtual environment's `python3` stands beside the engine's own, active or not.
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": str(self._cpus),
            **own,
            "LIMBECK_CPUS": str(self._cpus),
            "CUDA_VISIBLE_DEVICES": ",".join(self._gpus),
            "LIMBECK_CHECKPOINTS": str(self._layout.checkpoints(self.task.digest)),
            **{name: str(work / file) for name, file in ABOUT_RUN.items()},
            "TASK_WORKDIR": str(work),
            "MOZ_FETCHES_DIR": str(work / "fetches"),
            "TASK_ID": self.task.task_id,
            "RUN_ID": str(self.number),
        }

    def _write(self, log: BinaryIO, message: str) -> None:
        log.write(f"{ENGINE_MARK}{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n".encode())

    def _time_out(self) -> None:
        self._timed_out = True
        self._end()

    def stop(self, grace: float | None = None) -> None:
        """Ask the task to end: SIGTERM now, SIGKILL when the time of grace (by default its own) is over."""
        self.stopped = True
        self._grace = self._grace if grace is None else grace
        self._end()

    def kill(self) -> None:
        """End the task at once."""
        self.stopped = self._ending = True
        if self._process:
            self._process.send(signal.SIGKILL)

    def _end(self) -> None:
        self._ending = True
        if self._process:
            self._process.send(signal.SIGTERM)
            self._timers.append(asyncio.get_running_loop().call_later(self._grace, self._process.send, signal.SIGKILL))


def remove_work(layout: Layout, task_id: str) -> None:
    """Remove the work folders of all runs of a task. Logs and artifacts stay."""
    for run in layout.runs(task_id).iterdir():
        for name in ("work", "artifacts.partial"):
            if (run / name).exists():
                shutil.rmtree(run / name, ignore_errors=True)
