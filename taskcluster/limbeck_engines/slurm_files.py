"""What the login node and the compute nodes tell each other: JSON files in the runs folder, replaced as a whole.

SQLite does not work over a network file system from several machines, so a job never opens the record.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from limbeck_engines.artifacts import Layout
from limbeck_engines.task import Resources, Task
from pipeline.common.errors import UserError

# How a run ended, beside the states of tasks:
RETRY = "retry"  # queued again, for it may succeed
CONTINUED = "continued"  # queued again to go on: its job's time was over before its maxRunTime was
STOPPED = "stopped"  # told to stop: what becomes of the job is Slurm's, or a person's, decision
LOST = "lost"  # its node died


@dataclass
class JobSettings:
    """What a job needs to know of the profile."""

    worker_type: str
    gpus: int
    nodes: int
    container: list[str]
    scratch: str | None
    time_limit: int | None  # seconds, of the job
    signal_seconds: int  # so long before that it is told to stop
    kill_wait: int  # seconds between Slurm's SIGTERM and SIGKILL


@dataclass
class Source:
    """Another task whose artifacts a task reads. `folder`: that of its run, in the runs folder; None: not done yet."""

    label: str
    folder: str | None = None


@dataclass
class Order:
    """`task.json`: a task as it was handed over, for the `submission`-th time (from 0)."""

    group_id: str
    submission: int
    task: Task
    settings: JobSettings
    sources: dict[str, Source]  # by task id
    twins: list[str] = field(default_factory=list)  # unfinished tasks of the same digest

    def write(self, layout: Layout) -> None:
        write_json(_folder(layout, self.task.task_id) / "task.json", asdict(self))

    @classmethod
    def read(cls, layout: Layout, task_id: str) -> "Order | None":
        values = _read_json(_folder(layout, task_id) / "task.json")
        if values is None:
            return None
        task = values["task"]
        task |= {"dependencies": tuple(task["dependencies"]), "resources": Resources(**task["resources"])}
        sources = {task_id: Source(**source) for task_id, source in values["sources"].items()}
        return cls(
            **{**values, "task": Task(**task), "settings": JobSettings(**values["settings"]), "sources": sources}
        )


@dataclass
class Run:
    """One run of a task. Times are seconds since the epoch; `end` is None while it goes on."""

    number: int
    started: float
    host: str
    job: str
    finished: float | None = None
    end: str | None = None  # a state of tasks, or one of the above
    exit_code: int | None = None
    reason: str | None = None


@dataclass
class State:
    """`state.json`: what became of a task since it was handed over last. Only its job writes it."""

    submission: int
    runs: list[Run] = field(default_factory=list)
    folder: str | None = None  # in the runs folder: of the run whose artifacts are the task's, once it is done
    source: str | None = None  # the other task whose run that is

    def write(self, layout: Layout, task_id: str) -> None:
        write_json(_folder(layout, task_id) / "state.json", asdict(self))

    @classmethod
    def read(cls, layout: Layout, task_id: str, submission: int) -> "State | None":
        """None before the job has started."""
        values = _read_json(_folder(layout, task_id) / "state.json")
        if values is None or values["submission"] != submission:
            return None
        return cls(**{**values, "runs": [Run(**run) for run in values["runs"]]})


@dataclass
class GroupFile:
    """`slurm/<group>/group.json`: who submitted the group, with which profile, and how often."""

    user: str
    profile: str
    submissions: int = 0

    def write(self, layout: Layout, group_id: str) -> None:
        write_json(group_folder(layout, group_id) / "group.json", asdict(self))

    @classmethod
    def read(cls, layout: Layout, group_id: str) -> "GroupFile":
        path = group_folder(layout, group_id) / "group.json"
        values = _read_json(path)
        if values is None:
            raise UserError(f"{path} is missing: the group was never handed over to Slurm")
        return cls(**values)


def group_folder(layout: Layout, group_id: str) -> Path:
    return layout.root / "slurm" / group_id


def array_path(layout: Layout, group_id: str, name: str) -> Path:
    """The file with the task ids of a job array, by index."""
    return group_folder(layout, group_id) / f"{name}.json"


def write_array(layout: Layout, group_id: str, name: str, tasks: dict[int, str]) -> None:
    write_json(array_path(layout, group_id, name), {str(index): task_id for index, task_id in tasks.items()})


def read_array(layout: Layout, group_id: str, name: str) -> dict[int, str]:
    """Nothing when there is no such file."""
    return {int(index): task_id for index, task_id in (_read_json(array_path(layout, group_id, name)) or {}).items()}


def slurm_log(layout: Layout, task_id: str) -> Path:
    """What Slurm itself, and a job that ends early, have to say."""
    return _folder(layout, task_id) / "slurm.log"


def _folder(layout: Layout, task_id: str) -> Path:
    return layout.runs(task_id).parent


def write_json(path: Path, value: Any) -> None:
    """Whoever reads it sees all of it, or what stood there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    partial.replace(path)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return values
