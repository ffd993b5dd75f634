"""How tasks become Slurm jobs on one cluster: the profile, a YAML file such as configs/engines/slurm.yml."""

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationError

from limbeck_engines.machine import parse_size
from limbeck_engines.slurm_client import parse_time
from limbeck_engines.task import Task
from limbeck_taskgraph.catalogue import ROOT
from limbeck_taskgraph.config_file import exists, nearest
from limbeck_taskgraph.section import Section
from pipeline.common.errors import UserError

DEFAULT_PROFILE = ROOT.parent / "configs" / "engines" / "slurm.yml"


def _time(text: str) -> str:
    parse_time(text)
    return text


def _memory(text: str) -> str:
    if text not in ("default", "all"):
        try:
            parse_size(text)
        except Exception as error:
            raise ValueError(f"{error}, all (that of the node) or default (the partition's)") from error
    return text


def _option(text: str) -> str:
    if not text.startswith("-"):
        raise ValueError(f"{text!r} is no option of sbatch: write it like --exclude=node7")
    return text


class Worker(Section):
    """What the jobs of one worker type ask for. What is left out is the `defaults`', then what the task asks for."""

    partition: str | None = Field(default=None, description="Slurm's partition (default: the cluster's)")
    account: str | None = Field(default=None, description="account that is charged")
    qos: str | None = Field(default=None, description="quality of service")
    constraint: str | None = Field(default=None, description="features that the nodes must have")
    gpus: Annotated[int, Field(ge=0)] | None = Field(default=None, description="GPUs on each node")
    gres: str | None = Field(default=None, description="what this cluster calls the GPUs, such as gpu:a100 (--gres)")
    cpus: Annotated[int, Field(ge=1)] | Literal["all"] | None = Field(
        default=None, description="processors on each node; all: the whole node"
    )
    memory: Annotated[str, AfterValidator(_memory)] | None = Field(
        default=None, description="on each node, such as 64GB"
    )
    time: Annotated[str, AfterValidator(_time)] | None = Field(
        default=None,
        description="the longest that a job may run (default: the partition's limit, or the task's maxRunTime)",
    )
    nodes: int = Field(default=1, ge=1, description="machines that train one model together; other tasks take one")
    container: str | None = Field(
        default=None, description="what a task's command runs in: apptainer exec --nv image.sif"
    )
    setup: list[str] = Field(default=[], description="lines of bash before the task: module load cuda/12.4")
    python: str | None = Field(
        default=None, description="Python with Limbeck on the nodes (default: the one that submits)"
    )
    scratch: str | None = Field(
        default=None, description="folder on the node's own disk to work in, such as /tmp or $TMPDIR"
    )
    options: list[Annotated[str, AfterValidator(_option)]] = Field(default=[], description="more options of sbatch")

    def over(self, defaults: "Worker") -> "Worker":
        """These settings, and the defaults' where this says nothing."""
        return defaults.model_copy(update={name: getattr(self, name) for name in self.model_fields_set})


class Profile(Section):
    """A cluster's settings."""

    max_running: int | None = Field(default=None, ge=1, description="elements of one job array that run at a time")
    signal_seconds: int = Field(default=120, ge=20, description="a job is told to stop so long before its time is over")
    defaults: Worker = Worker()
    workers: dict[str, Worker] = Field(
        default={}, description="by worker type; what each leaves out is that of `defaults`"
    )

    def worker(self, task: Task) -> Worker:
        """What a task's job asks for, with what the task itself asks for where the profile says nothing."""
        worker = self.workers.get(task.worker_type, Worker()).over(self.defaults)
        wanted = task.resources
        return worker.model_copy(
            update={
                "gpus": wanted.gpus if worker.gpus is None else worker.gpus,
                "cpus": (wanted.cpus or 1) if worker.cpus is None else worker.cpus,
                "memory": worker.memory or (f"{wanted.memory / 1e6:.0f}MB" if wanted.memory else "default"),
            }
        )


def load_profile(path: Path) -> Profile:
    """Read and check a profile. Raises UserError with all that is wrong: file, key, what would be right."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path} does not exist: it says how tasks become Slurm jobs; {DEFAULT_PROFILE} is one"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from error
    try:
        profile = Profile.model_validate({} if values is None else values)
    except ValidationError as error:
        problems = [_describe(item, values) for item in error.errors()]
        raise UserError(f"{path}: " + "; ".join(dict.fromkeys(problems))) from error
    for name, worker in {"defaults": profile.defaults, **profile.workers}.items():
        merged = worker.over(profile.defaults)
        if merged.nodes > 1 and merged.scratch:
            place = name if name == "defaults" else f"workers.{name}"
            raise UserError(f"{path}: {place}: nodes above 1 needs folders that all nodes see: take scratch away")
        _check_words(path, name, merged)
    _check_worker_types(path, profile)
    return profile


def _check_words(path: Path, name: str, worker: Worker) -> None:
    for key in ("container", "python"):
        try:
            shlex.split(getattr(worker, key) or "")
        except ValueError as error:
            raise UserError(f"{path}: workers.{name}.{key}: not a command: {error}") from error


def _check_worker_types(path: Path, profile: Profile) -> None:
    from limbeck_taskgraph.generate import worker_resources

    known = list(worker_resources())
    for name in profile.workers:
        if name not in known:
            raise UserError(
                f"{path}: workers.{name}: no such worker type{nearest(name, known)}; known: {', '.join(known)}"
            )


def _describe(item: Any, values: Any) -> str:
    # A union's error has one entry for each member, with the member's name as the last part of the place.
    place = [str(part) for part in item["loc"]]
    while place and item["type"] not in ("missing", "extra_forbidden") and not exists(values, place):
        place.pop()
    key = ".".join(place) or "the profile"
    if item["type"] == "extra_forbidden":
        section = Profile if len(place) == 1 else Worker
        known = [field.alias or name for name, field in section.model_fields.items()]
        return f"{key}: unknown key{nearest(place[-1], known)}; known keys here: {', '.join(known)}"
    if item["type"] == "value_error":
        return f"{key}: {item['ctx']['error']}"
    if item["type"] == "string_type":
        return f"{key}: found {item['input']!r}; needed: a text, in quotes"
    field = Worker.model_fields.get(place[-1].replace("-", "_")) if place else None
    meaning = f" ({field.description})" if field is not None and field.description else ""
    return f"{key}: found {item['input']!r}; {item['msg'][0].lower()}{item['msg'][1:]}{meaning}"
