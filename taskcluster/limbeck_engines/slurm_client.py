"""Slurm's commands, as this engine uses them."""

import datetime
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.common.errors import TransientError, UserError

_PROGRAMS = ("sbatch", "squeue", "scancel", "scontrol")
_FIELDS = "%i|%T|%r|%N|%e|%k"
_MARK = "limbeck"
_IDS_AT_ONCE = 500
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d\d))?(?::(\d\d))?")
# Of a job, or an interactive one, in which somebody submits; not of the cluster.
_OF_A_JOB = re.compile(r"(SLURM|SLURMD)_(?!CONF)\w+|CUDA_VISIBLE_DEVICES|ROCR_VISIBLE_DEVICES|GPU_DEVICE_ORDINAL")

LIVING = (
    *("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "STAGE_OUT", "SUSPENDED", "STOPPED", "SIGNALING"),
    *("RESIZING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"),
)
WAITING = ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD", "CONFIGURING")


@dataclass(frozen=True)
class Comment:
    """What a job says of itself: its group, which handing over it is of, and its task, or the name of its array."""

    group_id: str
    submission: int
    name: str

    def __str__(self) -> str:
        return f"{_MARK}:{self.group_id}:{self.submission}:{self.name}"

    @classmethod
    def parse(cls, text: str) -> "Comment | None":
        parts = text.split(":")
        if len(parts) != 4 or parts[0] != _MARK or not parts[2].isdigit():
            return None
        return cls(parts[1], int(parts[2]), parts[3])


@dataclass(frozen=True)
class SlurmJob:
    """A job, or one element of an array, as squeue shows it. `index`: of an array's element."""

    job_id: str
    index: int | None
    state: str
    reason: str
    nodes: str
    ended: float | None  # seconds since the epoch; of living jobs, when their time will be over
    comment: Comment

    @property
    def living(self) -> bool:
        return self.state in LIVING


def parse_squeue(text: str) -> list[SlurmJob]:
    """The jobs of this engine in squeue's output. Others' are passed over."""
    jobs = []
    for line in text.splitlines():
        fields = line.split("|", 5)
        comment = Comment.parse(fields[5].strip()) if len(fields) == 6 else None
        if comment is None:
            continue
        _, _, index = fields[0].partition("_")
        _, state, reason, nodes, ended, _ = fields
        number = int(index) if index.isdigit() else None
        jobs.append(SlurmJob(fields[0], number, state, reason, nodes, _epoch(ended), comment))
    return jobs


def _epoch(text: str) -> float | None:
    """Seconds since the epoch of a local time as Slurm writes it; None of `N/A`."""
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def own_job() -> str:
    """What Slurm's commands call the job, or the element of an array, that this process is in."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    # The last element to start has the array's number as its SLURM_JOB_ID, which commands take to mean all of them.
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID", "")


class Slurm:
    """Raises UserError when the programs are missing, TransientError when the cluster does not answer."""

    def __init__(self) -> None:
        self.environment = {name: value for name, value in os.environ.items() if not _OF_A_JOB.fullmatch(name)}

    def check(self) -> None:
        """Raise UserError where one cannot submit to Slurm."""
        missing = [name for name in _PROGRAMS if shutil.which(name) is None]
        if missing:
            raise UserError(
                f"--engine slurm needs Slurm's commands, and this machine has no {', '.join(missing)}: run it on a "
                "login node of the cluster"
            )

    def submit(self, options: Sequence[str], script: str, arguments: Sequence[str]) -> str:
        """Hand over a job; returns its id. Raises UserError with what Slurm says against it."""
        done = self._run("sbatch", "--parsable", *options, script, *arguments)
        if done.returncode:
            raise UserError(f"sbatch: {_said(done)} (sbatch {' '.join(options)})")
        return done.stdout.strip().partition(";")[0]

    def jobs(self, user: str) -> list[SlurmJob]:
        """The living jobs of a user and those that ended a short while ago (Slurm's MinJobAge)."""
        done = self._run("squeue", "--array", "--noheader", "--states=all", f"--user={user}", f"--format={_FIELDS}")
        if done.returncode:
            raise TransientError(f"squeue: {_said(done)}")
        return parse_squeue(done.stdout)

    def cancel(self, job_ids: Iterable[str]) -> None:
        """Cancel jobs; those that have ended meanwhile are no error."""
        ids = list(job_ids)
        for start in range(0, len(ids), _IDS_AT_ONCE):
            self._run("scancel", "--quiet", *ids[start : start + _IDS_AT_ONCE])

    def signal_steps(self, job_id: str, name: str) -> None:
        """Send a signal to what a job has started with srun, and not to its script."""
        self._run("scancel", "--quiet", f"--signal={name}", job_id)

    def requeue(self, job_id: str) -> str | None:
        """Queue a job again; returns what Slurm says when it does not."""
        done = self._run("scontrol", "requeue", job_id)
        return _said(done) if done.returncode else None

    def settings(self) -> dict[str, str]:
        """`scontrol show config`, by name."""
        done = self._run("scontrol", "show", "config")
        if done.returncode:
            raise TransientError(f"scontrol: {_said(done)}")
        pairs = (line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
        return {name.strip(): value.strip() for name, value in pairs}

    def partition_limits(self) -> dict[str | None, int]:
        """Seconds that a job may run in each partition that limits them; None stands for the default one."""
        done = self._run("scontrol", "show", "partition", "--oneliner")
        if done.returncode:
            raise TransientError(f"scontrol: {_said(done)}")
        limits: dict[str | None, int] = {}
        for line in done.stdout.splitlines():
            values = dict(word.split("=", 1) for word in line.split() if "=" in word)
            if values.get("MaxTime", "UNLIMITED") == "UNLIMITED":
                continue
            limits[values["PartitionName"]] = parse_time(values["MaxTime"])
            if values.get("Default") == "YES":
                limits[None] = limits[values["PartitionName"]]
        return limits

    def _run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        try:
            return subprocess.run(
                command, capture_output=True, text=True, check=False, env=self.environment, timeout=120
            )
        except FileNotFoundError as error:
            raise UserError(f"{command[0]} is not installed here: the Slurm engine needs it") from error
        except subprocess.TimeoutExpired as error:
            raise TransientError(f"{command[0]} did not answer within 2 minutes") from error


def _said(done: "subprocess.CompletedProcess[str]") -> str:
    lines = [line for line in (done.stderr or done.stdout).strip().splitlines() if line]
    return " ".join(line.removeprefix("sbatch: error: ") for line in lines) or f"exit code {done.returncode}"


def parse_time(text: str) -> int:
    """Seconds of Slurm's `D-HH:MM:SS`, `D-HH`, `HH:MM:SS`, `MM:SS` or minutes. Raises ValueError."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text!r} is no time: write it like '2-00:00:00' (days), '12:00:00' (hours) or '90' (minutes)"
        )
    days, *parts = (None if part is None else int(part) for part in found.groups())
    first, second, third = parts
    assert first is not None
    if days is not None:
        return ((days * 24 + first) * 60 + (second or 0)) * 60 + (third or 0)
    if third is not None:
        return (first * 60 + (second or 0)) * 60 + third
    return first * 60 + (second or 0)


def format_time(seconds: float) -> str:
    """The same as Slurm's `D-HH:MM:SS`, up to the full minute, which is what Slurm counts in."""
    minutes = -(-int(seconds) // 60)
    return f"{minutes // 1440}-{minutes // 60 % 24:02}:{minutes % 60:02}:00"
