"""The engine for clusters under Slurm: a job for each task, and no process that stays.

The runs folder lies on a file system that the login node and all compute nodes share.
"""

import argparse
import contextlib
import getpass
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from limbeck_engines.base import GroupStatus
from limbeck_engines.display import Display
from limbeck_engines.file_systems import file_system_type, is_network_file_system
from limbeck_engines.locks import FileLock
from limbeck_engines.recovery import group_lock_path, put_back, put_back_damaged
from limbeck_engines.runs_folder import RunsFolderEngine
from limbeck_engines.slurm_client import Slurm, SlurmJob
from limbeck_engines.slurm_files import GroupFile, group_folder, slurm_log
from limbeck_engines.slurm_handover import Handover
from limbeck_engines.slurm_profile import DEFAULT_PROFILE, load_profile
from limbeck_engines.slurm_record import group_state, jobs_by_task, reconcile
from limbeck_engines.slurm_watch import watch
from limbeck_engines.store import TaskRow
from limbeck_engines.task import CANCELLED, DONE, PENDING, REUSED, RUNNING, Summary, Task
from pipeline.common.errors import TransientError, UserError

logger = logging.getLogger(__name__)

_FILES_LATE = 60.0  # seconds that a network file system may show an old state of a file
_CANCEL_PATIENCE = 180.0  # seconds beyond Slurm's own


class SlurmEngine(RunsFolderEngine):
    """Hands groups over to Slurm, and tells from Slurm and the runs folder what became of them.

    `profile` says how tasks become jobs; a group that is resumed keeps to the file that it was submitted with.
    `poll`: seconds between two looks at a group that is watched or followed.
    """

    attended = False

    def __init__(self, runs_dir: Path, profile: Path = DEFAULT_PROFILE, poll: float = 5.0) -> None:
        super().__init__(runs_dir)
        self._profile, self._poll = profile, poll
        self._slurm = Slurm()
        self._looked: dict[str, float] = {}  # group id -> when it was reconciled last
        shared = is_network_file_system(file_system_type(self.store.layout.root))
        self._late = _FILES_LATE if shared else 0.0

    @classmethod
    def add_arguments(cls, parser: "argparse._ActionsContainer") -> None:
        parser.add_argument(
            "--slurm-profile",
            type=Path,
            default=DEFAULT_PROFILE,
            metavar="FILE",
            help="how tasks become jobs on this cluster (default: configs/engines/slurm.yml)",
        )

    @classmethod
    def from_options(cls, runs_dir: Path, options: argparse.Namespace) -> Self:
        engine = cls(runs_dir, options.slurm_profile)
        engine._slurm.check()
        load_profile(options.slurm_profile)
        return engine

    # Handing over

    def submit(self, group_id: str, name: str, tasks: list[Task], config_text: str) -> str:
        self.check_tasks(group_id, tasks)
        self._slurm.check()
        path = self._profile.resolve()
        handover = Handover(self.store, self._slurm, load_profile(path), path, group_id)
        with self._hold(group_id):
            # First, so that a group that is recorded can always be looked at and resumed.
            if not group_folder(self.store.layout, group_id).exists():
                GroupFile(getpass.getuser(), str(path)).write(self.store.layout, group_id)
            self.store.add_group(group_id, name, config_text, tasks, engine="slurm")
            self._hand_over(handover, tasks, {})
        return group_id

    def restart(self, group_id: str) -> None:
        self._slurm.check()
        file = GroupFile.read(self.store.layout, group_id)
        path = Path(file.profile)
        handover = Handover(self.store, self._slurm, load_profile(path), path, group_id)
        with self._hold(group_id):
            reconcile(self.store, group_id, self._slurm.jobs(file.user))
            put_back(self.store, group_id)
            for label, damage in put_back_damaged(self.store, group_id):
                logger.warning(f"{label} runs again: {damage}")
            rows = {row.task_id: row for row in self.store.tasks(group_id)}
            again = self._to_hand_over(rows)
            if not again:
                return
            jobs = jobs_by_task(self.store, group_id, self._slurm.jobs(file.user))
            self._stop({task_id: job for task_id, job in jobs.items() if task_id in again and job.living}, file.user)
            file.submissions += 1
            file.write(self.store.layout, group_id)
            living = {task_id: job.job_id for task_id, job in jobs.items() if task_id not in again and job.living}
            self._hand_over(handover, [row.task() for row in rows.values() if row.task_id in again], living)

    def _to_hand_over(self, rows: dict[str, TaskRow]) -> set[str]:
        """The tasks that are not done and have no job, and those in the queue that wait for one of them."""
        again = {task_id for task_id, row in rows.items() if row.state == PENDING and row.job is None}
        for task_id in sorted(again):
            done_by = self.store.lookup(rows[task_id].digest, since=self.store.group(rows[task_id].group_id).created)
            if done_by is not None and done_by != task_id:
                self.store.update_task(task_id, state=REUSED, reused_from=done_by, reason=None, finished=time.time())
                again.discard(task_id)
        dependents: dict[str, list[str]] = {}
        for row in rows.values():
            for dependency in row.dependencies:
                dependents.setdefault(dependency, []).append(row.task_id)
        reached = sorted(again)
        for task_id in reached:  # grows while it is read
            for dependent in dependents.get(task_id, ()):
                if dependent not in again and rows[dependent].state == PENDING:
                    again.add(dependent)
                    reached.append(dependent)
        return again

    def _hand_over(self, handover: Handover, tasks: list[Task], living: dict[str, str]) -> None:
        """Submit jobs for tasks, all or none."""
        group_id, file = handover.group_id, GroupFile.read(self.store.layout, handover.group_id)
        try:
            with contextlib.ExitStack() as stack:
                pool = stack.enter_context(ThreadPoolExecutor(4))
                handed = handover.submit(tasks, file.submissions, living, pool)
        except BaseException:
            with contextlib.suppress(TransientError, UserError):
                self._stop_submission(group_id, file)
            with self.store.transaction():
                for task in tasks:
                    self.store.update_task(task.task_id, state=CANCELLED, job=None, reason="it was not handed over")
                # What was handed over before goes on.
                self.store.update_group(group_id, state=group_state(self.store.tasks(group_id)))
            raise
        with self.store.transaction():
            for task_id, job in handed.items():
                self.store.update_task(task_id, job=job, reason=None, finished=None, exit_code=None, reused_from=None)
            self.store.update_group(group_id, state=RUNNING, cancel_requested=0)

    @contextlib.contextmanager
    def _hold(self, group_id: str) -> Iterator[None]:
        """Nobody else hands over, cancels or reconciles the group meanwhile."""
        lock = FileLock.acquire(group_lock_path(self.store, group_id), patience=60)
        if lock is None:
            raise UserError(
                f"another command is handing over or cancelling group {group_id}: try again when it is done"
            )
        try:
            yield
        finally:
            lock.release()

    # Watching

    def run(self, group_id: str, display: Display | None = None) -> Summary:
        return watch(self, group_id, display or Display(), self._poll)

    def status(self, group_id: str) -> GroupStatus:
        self._reconcile([group_id])
        rows = self.store.tasks(group_id)
        return GroupStatus(self.store.group(group_id), rows, Counter(row.state for row in rows))

    def _reconcile(self, group_ids: Iterable[str]) -> None:
        jobs: dict[str, list[SlurmJob] | None] = {}
        for group_id in group_ids:
            self.store.group(group_id)
            self._looked[group_id] = time.monotonic()
            lock = FileLock.acquire(group_lock_path(self.store, group_id))
            if lock is None:
                continue  # it is being handed over or cancelled: what is recorded is being changed
            try:
                user = GroupFile.read(self.store.layout, group_id).user
                if user not in jobs:
                    jobs[user] = self._jobs_or_none(user)
                reconcile(self.store, group_id, jobs[user], self._late)
            finally:
                lock.release()

    def _jobs_or_none(self, user: str) -> list[SlurmJob] | None:
        try:
            return self._slurm.jobs(user)
        except (TransientError, UserError) as error:
            logger.warning(f"Slurm does not answer, so only what tasks wrote down is known: {error}")
            return None

    # Stopping

    def cancel(self, group_id: str) -> None:
        file = GroupFile.read(self.store.layout, group_id)
        self._slurm.check()
        with self._hold(group_id):
            self._stop_group(group_id, file.user)
            reconcile(self.store, group_id, self._slurm.jobs(file.user))
            unfinished = [row for row in self.store.tasks(group_id) if row.state in (PENDING, RUNNING)]
            cancelled = [row for row in self.store.tasks(group_id) if row.state == CANCELLED]
            with self.store.transaction():
                for row in [*unfinished, *cancelled]:
                    finished = row.finished or time.time()
                    self.store.update_task(
                        row.task_id, state=CANCELLED, reason="cancelled", job=None, finished=finished
                    )
                if unfinished or cancelled:
                    self.store.update_group(group_id, state=CANCELLED)

    def _stop_submission(self, group_id: str, file: GroupFile) -> None:
        """Cancel the jobs of the newest handing over."""
        jobs = jobs_by_task(self.store, group_id, self._slurm.jobs(file.user))
        self._stop({name: job for name, job in jobs.items() if job.comment.submission == file.submissions}, file.user)

    def _stop_group(self, group_id: str, user: str) -> None:
        self._stop(jobs_by_task(self.store, group_id, self._slurm.jobs(user)), user)

    def _stop(self, jobs: dict[str, SlurmJob], user: str) -> None:
        """Cancel jobs, and return when all have ended."""
        living = {job.job_id for job in jobs.values() if job.living}
        if not living:
            return
        self._slurm.cancel(sorted(living))
        kill_wait = int(self._slurm.settings().get("KillWait", "30 sec").split()[0])
        deadline, pause = time.monotonic() + kill_wait + _CANCEL_PATIENCE, 0.2
        while living := {job.job_id for job in self._slurm.jobs(user) if job.job_id in living and job.living}:
            if time.monotonic() > deadline:
                raise UserError(f"Slurm does not end the jobs {', '.join(sorted(living)[:5])}: see squeue")
            time.sleep(pause)
            pause = min(2 * pause, self._poll)

    # Logs and artifacts

    def log_path(self, task_id: str) -> Path:
        row = self._resolve(task_id)
        # Asked of the folder, which knows of a new run before the record does.
        newest = self.store.layout.newest_run(row.task_id)
        log = None if newest is None else self.store.layout.run(row.task_id, newest) / "live.log"
        if log is not None and log.exists():
            return log
        said = slurm_log(self.store.layout, row.task_id)
        if said.exists() and said.stat().st_size:
            return said
        row = next(each for each in self.status(row.group_id).tasks if each.task_id == row.task_id)
        why = f" ({row.reason})" if row.reason else ""
        raise UserError(f"{row.label} ({task_id}) has no log: it has not started yet{why}")

    def _goes_on(self, task_id: str) -> bool:
        group_id = self.store.task(task_id).group_id
        if time.monotonic() - self._looked.get(group_id, 0.0) >= self._poll:
            self._reconcile([group_id])
        row = self.store.task(task_id)
        return row.state == RUNNING or (row.state == PENDING and row.job is not None)

    def artifacts(self, task_id: str) -> dict[str, Path]:
        row = self._resolve(task_id)
        if row.state not in DONE and self.store.group(row.group_id).engine == "slurm":
            self._reconcile([row.group_id])
        return super().artifacts(task_id)
