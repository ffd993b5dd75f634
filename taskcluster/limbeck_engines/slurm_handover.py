"""Handing tasks over to Slurm: what their jobs need is written down, then each gets its sbatch."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path

from limbeck_engines.artifacts import Layout
from limbeck_engines.slurm_client import Comment, Slurm, format_time, parse_time
from limbeck_engines.slurm_files import (
    JobSettings,
    Order,
    Source,
    array_path,
    group_folder,
    slurm_log,
    write_array,
)
from limbeck_engines.slurm_jobs import Job, plan_jobs
from limbeck_engines.slurm_launch import nodes_of
from limbeck_engines.slurm_profile import Profile, Worker
from limbeck_engines.store import Store
from limbeck_engines.task import DONE, PENDING, RUNNING, Task
from pipeline.common.errors import UserError
from pipeline.common.progress import format_duration

_OVERHEAD = 300  # seconds of a job beyond its task's: inputs, publishing, a slow file system
_PYTHON_MEMORY = 200  # MB that the smallest job needs for itself


class Handover:
    """Submits tasks of one group with a profile."""

    def __init__(self, store: Store, slurm: Slurm, profile: Profile, profile_path: Path, group_id: str) -> None:
        self.group_id = group_id
        self._store, self._slurm, self._profile, self._path = store, slurm, profile, profile_path
        settings = slurm.settings()
        self._max_array_size = max(1, int(settings.get("MaxArraySize", "1001")))  # 0: there are no arrays
        self._kill_wait = int(settings.get("KillWait", "30 sec").split()[0])
        self._limits = slurm.partition_limits()

    def submit(
        self, tasks: Sequence[Task], submission: int, living: Mapping[str, str], pool: Executor
    ) -> dict[str, str]:
        """Submit jobs for tasks; returns the job of each. `living`: jobs of the group's other tasks.

        Raises UserError with what Slurm says when it refuses one; those before it are submitted then.
        """
        twins = self._twins(tasks)
        jobs = self._outside(tasks, twins) | dict(living)
        likeness = {task.task_id: (task.kind, self._options_of_one(task)) for task in tasks}
        plan = plan_jobs(tasks, likeness, jobs, twins, self._max_array_size)
        scripts = self._write_scripts(tasks)
        for task in tasks:
            self._order(task, submission, twins).write(self._store.layout)
        return self._submit_all(plan, scripts, submission, pool)

    def _submit_all(
        self, plan: list[Job], scripts: Mapping[str, Path], submission: int, pool: Executor
    ) -> dict[str, str]:
        """Jobs whose dependencies are submitted go side by side: sbatch mostly waits for Slurm."""
        ids: dict[int, str] = {}
        waiting = list(enumerate(plan))
        while waiting:
            ready: list[tuple[int, Job]] = []
            later: list[tuple[int, Job]] = []
            for number, job in waiting:
                needs = [after.job for after in job.after if isinstance(after.job, int)]
                (ready if all(need in ids for need in needs) else later).append((number, job))
            futures: list[tuple[int, Future[str]]] = [
                (number, pool.submit(self._submit, job, f"array-{submission}-{number}", scripts, submission, ids))
                for number, job in ready
            ]
            try:
                for number, future in futures:
                    ids[number] = future.result()
            except BaseException:
                for _, future in futures:
                    future.cancel()
                for _, future in futures:  # what has begun must be known before it can be taken back
                    if not future.cancelled():
                        future.exception()
                raise
            waiting = later
        handed = {}
        for number, job in enumerate(plan):
            for position, task in enumerate(job.tasks):
                suffix = f"_{job.indexes[position]}" if job.is_array else ""
                handed[task.task_id] = f"{ids[number]}{suffix}"
        return handed

    def _submit(
        self, job: Job, array_name: str, scripts: Mapping[str, Path], submission: int, ids: Mapping[int, str]
    ) -> str:
        layout, first = self._store.layout, job.tasks[0]
        name = array_name if job.is_array else first.task_id
        options = [
            f"--comment={Comment(self.group_id, submission, name)}",
            f"--job-name={first.kind if job.is_array else first.label}",
            *self._options_of_one(first),
            *("--requeue", "--open-mode=append", "--kill-on-invalid-dep=yes", f"--chdir={_escape(layout.root)}"),
        ]
        if job.after:
            options.append(f"--dependency={','.join(after.text(ids) for after in job.after)}")
        if not job.is_array:
            log = slurm_log(layout, first.task_id)
            options.append(f"--output={_escape(log)}")
            return self._slurm.submit(options, str(scripts[first.worker_type]), [first.task_id])
        write_array(
            layout, self.group_id, name, {i: task.task_id for i, task in zip(job.indexes, job.tasks, strict=True)}
        )
        limit = f"%{self._profile.max_running}" if self._profile.max_running else ""
        logs = group_folder(layout, self.group_id) / name
        logs.mkdir(parents=True, exist_ok=True)
        for index, task in zip(job.indexes, job.tasks, strict=True):
            _point(slurm_log(layout, task.task_id), logs / f"{index}.log")
        options += [f"--array={_ranges(job.indexes)}{limit}", f"--output={_escape(logs)}/%a.log"]
        arguments = ["--array", str(array_path(layout, self.group_id, name))]
        return self._slurm.submit(options, str(scripts[first.worker_type]), arguments)

    # What a job asks for

    def _options_of_one(self, task: Task) -> tuple[str, ...]:
        """What a task asks of Slurm, whatever it waits for."""
        worker = self._profile.worker(task)
        nodes = nodes_of(worker.nodes, task)
        asked = {
            "partition": worker.partition,
            "account": worker.account,
            "qos": worker.qos,
            "constraint": worker.constraint,
            "nodes": nodes,
            "ntasks-per-node": 1,
        }
        options = [f"--{name}={value}" for name, value in asked.items() if value is not None]
        options += ["--exclusive"] if worker.cpus == "all" else [f"--cpus-per-task={worker.cpus}"]
        if worker.memory not in ("default", None):
            options.append(f"--mem={_megabytes(worker)}")
        if worker.gpus:
            options.append(f"--gres={worker.gres}:{worker.gpus}" if worker.gres else f"--gpus-per-node={worker.gpus}")
        if limit := self._time_limit(task, worker):
            if limit <= self._profile.signal_seconds:
                ahead = format_duration(self._profile.signal_seconds)
                raise UserError(
                    f"{self._path}: jobs of {task.worker_type or task.kind} may run for {format_duration(limit)}, and "
                    f"are told to stop {ahead} before that, so at once: needed: a smaller signal-seconds, or a longer "
                    "time (of the partition, too)"
                )
            options.append(f"--time={format_time(limit)}")
        options.append(f"--signal=B:USR1@{self._profile.signal_seconds}")
        return (*options, *worker.options)

    def _time_limit(self, task: Task, worker: Worker) -> int | None:
        """Seconds that the job of a task may run; None: as long as the partition lets it."""
        wanted = task.payload.get("maxRunTime")
        allowed = [self._limits.get(worker.partition), parse_time(worker.time) if worker.time else None]
        if wanted:
            allowed.append(int(wanted) + self._profile.signal_seconds + _OVERHEAD)
        return min((limit for limit in allowed if limit is not None), default=None)

    def _settings(self, task: Task) -> JobSettings:
        worker = self._profile.worker(task)
        return JobSettings(
            worker_type=task.worker_type,
            gpus=worker.gpus or 0,
            nodes=worker.nodes,
            container=shlex.split(worker.container or ""),
            scratch=worker.scratch,
            time_limit=self._time_limit(task, worker),
            signal_seconds=self._profile.signal_seconds,
            kill_wait=self._kill_wait,
        )

    def _write_scripts(self, tasks: Sequence[Task]) -> dict[str, Path]:
        """One script for each worker type; the task is its argument."""
        scripts = {}
        for worker_type, task in {task.worker_type: task for task in tasks}.items():
            worker = self._profile.worker(task)
            path = group_folder(self._store.layout, self.group_id) / f"{worker_type or 'task'}.sh"
            path.write_text(job_script(worker, self._store.layout), encoding="utf-8")
            scripts[worker_type] = path
        return scripts

    # What a job reads

    def _order(self, task: Task, submission: int, twins: Mapping[str, Sequence[str]]) -> Order:
        layout, sources = self._store.layout, {}
        for dependency in task.dependencies:
            row = self._store.find_task(dependency)
            if row is None:
                continue
            folder = self._store.run_folder(dependency) if row.state in DONE else None
            sources[dependency] = Source(row.label, str(folder.relative_to(layout.root)) if folder else None)
        return Order(self.group_id, submission, task, self._settings(task), sources, list(twins.get(task.task_id, ())))

    def _twins(self, tasks: Sequence[Task]) -> dict[str, list[str]]:
        """For each task those of its digest, of any group, that are to be done before it."""
        own = {task.task_id for task in tasks}
        by_digest: dict[str, list[str]] = {}
        twins = {}
        for task in tasks:
            earlier = by_digest.setdefault(
                task.digest,
                [
                    row.task_id
                    for row in self._store.unfinished(task.digest)
                    if row.task_id not in own and row.group_id != self.group_id
                ],
            )
            if earlier:
                twins[task.task_id] = list(earlier)
            earlier.append(task.task_id)
        return twins

    def _outside(self, tasks: Sequence[Task], twins: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """The jobs of tasks of other groups that these wait for."""
        own = {task.task_id for task in tasks}
        needed = {task_id for task in tasks for task_id in [*task.dependencies, *twins.get(task.task_id, ())]}
        jobs = {}
        for task_id in needed - own:
            row = self._store.find_task(task_id)
            if row is None or not row.job or row.state not in (PENDING, RUNNING) or row.group_id == self.group_id:
                continue
            if self._store.group(row.group_id).engine == "slurm":
                jobs[task_id] = row.job
        return jobs


def job_script(worker: Worker, layout: Layout) -> str:
    """The script of a job: the profile's lines, then one task. Its words come from sbatch's arguments."""
    python = worker.python or shlex.quote(sys.executable)
    lines = [
        "#!/bin/bash",
        "# A signal that comes early must not end the job: Python takes it over.",
        "trap '' USR1",
        *worker.setup,
        f'exec {python} -m limbeck_engines.slurm_task --runs {shlex.quote(str(layout.root))} "$@"',
    ]
    return "\n".join(lines) + "\n"


def _megabytes(worker: Worker) -> str:
    from limbeck_engines.machine import parse_size

    assert worker.memory is not None
    return "0" if worker.memory == "all" else f"{max(_PYTHON_MEMORY, parse_size(worker.memory) // 2**20)}M"


def _ranges(indexes: Sequence[int]) -> str:
    """`0-9,12` of increasing numbers."""
    parts: list[list[int]] = []
    for index in indexes:
        if parts and index == parts[-1][1] + 1:
            parts[-1][1] = index
        else:
            parts.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def _escape(path: Path) -> str:
    """A path in which Slurm fills in nothing."""
    return str(path).replace("%", "%%")


def _point(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target)
