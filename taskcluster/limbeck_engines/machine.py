"""What a machine has to give to tasks, and what of it is free."""

import argparse
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from limbeck_engines.task import Resources

_CGROUP = Path("/sys/fs/cgroup")
_SIZES = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class Machine:
    """Processors, memory in bytes, and the GPUs' names as CUDA_VISIBLE_DEVICES takes them."""

    cpus: int
    memory: int
    gpus: tuple[str, ...]

    @classmethod
    def detect(cls, cpus: int | None = None, memory: int | None = None, gpus: int | None = None) -> "Machine":
        """This machine, or this container of it; a given number replaces the one found."""
        found = find_gpus()
        if gpus is not None:
            found = (found + tuple(str(number) for number in range(len(found), gpus)))[:gpus]
        return cls(_count_cpus() if cpus is None else cpus, _find_memory() if memory is None else memory, found)

    def fit(self, resources: Resources) -> tuple[Resources, str | None]:
        """The resources that a task gets here, and a note when they are fewer than it asked for."""
        cpus = self.cpus if resources.cpus == "all" else min(resources.cpus, self.cpus)
        memory = min(resources.memory, self.memory)
        short = []
        if resources.cpus != "all" and cpus < resources.cpus:
            short.append(f"{resources.cpus} CPUs, this machine has {cpus}")
        if memory < resources.memory:
            short.append(f"{resources.memory / 1e9:.1f} GB of memory, this machine has {memory / 1e9:.1f}")
        note = f"asks for {' and '.join(short)}: it runs with what there is" if short else None
        return Resources(cpus, resources.gpus, memory), note


class Slots:
    """What of a machine is free. GPUs are handed out by name, so that no two tasks share one."""

    def __init__(self, machine: Machine) -> None:
        self._cpus, self._memory, self._gpus = machine.cpus, machine.memory, list(machine.gpus)

    def have(self, wanted: Resources) -> bool:
        assert wanted.cpus != "all"
        return wanted.cpus <= self._cpus and wanted.memory <= self._memory and wanted.gpus <= len(self._gpus)

    def take(self, wanted: Resources) -> list[str]:
        """Take what `have` has said is there; returns the GPUs' names."""
        assert wanted.cpus != "all"
        self._cpus -= wanted.cpus
        self._memory -= wanted.memory
        gpus, self._gpus = self._gpus[: wanted.gpus], self._gpus[wanted.gpus :]
        return gpus

    def give_back(self, wanted: Resources, gpus: list[str]) -> None:
        assert wanted.cpus != "all"
        self._cpus += wanted.cpus
        self._memory += wanted.memory
        self._gpus = sorted(self._gpus + gpus)


def _count_cpus() -> int:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read_limit("cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        cpus = min(cpus, max(1, int(quota) // int(period)))
    return cpus


def _find_memory() -> int:
    memory = int(psutil.virtual_memory().total)
    limit = _read_limit("memory.max")
    return min(memory, int(limit)) if limit.isdigit() else memory


def _read_limit(name: str) -> str:
    """A limit of the container that this process is in; empty outside of one."""
    try:
        return (_CGROUP / name).read_text().strip()
    except OSError:
        return ""


def find_gpus() -> tuple[str, ...]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip() and name.strip() != "-1")
    try:
        listing = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(listing.stdout.split())


def parse_size(text: str) -> int:
    """Bytes of `16GB` or `500MB`. Raises ArgumentTypeError."""
    for unit, factor in _SIZES.items():
        if text.upper().endswith(unit):
            try:
                return int(float(text[: -len(unit)]) * factor)
            except ValueError:
                break
    raise argparse.ArgumentTypeError(f"{text!r} is no size: write it like 16GB or 500MB")
