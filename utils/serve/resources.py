"""What running tasks take of this machine: sampled while the server runs, and kept in memory only."""

import asyncio
import contextlib
import logging
import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import psutil

from limbeck_engines.store import TaskRow
from limbeck_engines.task import RUNNING
from pipeline.common.errors import UserError
from utils.serve.records import Records, Session

logger = logging.getLogger(__name__)

_KEPT = 1440  # samples of a task; older ones are thinned out to every second when there are more
_TASKS = 500  # tasks whose samples are kept
_GPU_QUERY = ("nvidia-smi", "--query-compute-apps=pid,used_memory,gpu_uuid", "--format=csv,noheader,nounits")
_GPU_USE = ("nvidia-smi", "--query-gpu=uuid,utilization.gpu", "--format=csv,noheader,nounits")
_MIB = 1 << 20


@dataclass(frozen=True)
class Sample:
    """One look at a task's processes. `cpus`: processors in use, 1.0 is one of them; memory in bytes; `gpu` is the
    mean use of the GPUs that they are on, 0 to 1, and None where none is used.
    """

    moment: float  # seconds since the epoch
    cpus: float
    memory: int
    processes: int
    gpu: float | None = None
    gpu_memory: int | None = None


@dataclass
class Series:
    """The samples of one task's run; at first `interval` seconds apart, later more."""

    run: int | None
    samples: list[Sample] = field(default_factory=list)
    stride: int = 1
    skipped: int = 0
    processes: dict[int, psutil.Process] = field(default_factory=dict)

    def add(self, sample: Sample) -> None:
        self.skipped += 1
        if self.skipped < self.stride:
            return
        self.skipped = 0
        self.samples.append(sample)
        if len(self.samples) > _KEPT:
            self.samples = self.samples[::2]
            self.stride *= 2


class Sampler:
    """Looks at the processes of all running tasks of this machine every `interval` seconds."""

    def __init__(self, records: Records, interval: float = 2.0) -> None:
        self._records, self._interval = records, interval
        self._series: dict[str, Series] = {}
        self._has_gpus = shutil.which(_GPU_QUERY[0]) is not None

    def samples(self, task_id: str) -> Sequence[Sample]:
        series = self._series.get(task_id)
        return series.samples if series else ()

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            try:
                await self.look()
            except Exception:
                logger.exception("the use of resources could not be sampled")
            await asyncio.sleep(self._interval)

    async def look(self) -> None:
        """Take one sample of every running task."""
        rows = await self._records.ask(_running)
        gpus = await _gpu_use() if self._has_gpus and rows else {}
        await asyncio.to_thread(self._sample, rows, gpus)

    def _sample(self, rows: list[TaskRow], gpus: dict[int, tuple[int, float]]) -> None:
        now = time.time()
        for row in rows:
            series = self._series.get(row.task_id)
            if series is None or series.run != row.run:
                series = self._series[row.task_id] = Series(row.run)
            # Use is counted between two looks: the first one sees none.
            is_first = not series.processes
            if (sample := _look_at(series, row, now, gpus)) and not is_first:
                series.add(sample)
        while len(self._series) > _TASKS:
            del self._series[next(iter(self._series))]


def _running(session: Session) -> list[TaskRow]:
    """The running tasks that have a process here."""
    if session.is_empty:
        return []
    rows: list[TaskRow] = []
    for group in session.store.groups():
        if group.state == RUNNING:
            with contextlib.suppress(UserError):
                rows += [row for row in session.status(group.group_id).tasks if row.state == RUNNING and row.pid]
    return rows


def _look_at(series: Series, row: TaskRow, now: float, gpus: dict[int, tuple[int, float]]) -> Sample | None:
    """None when the task's process is gone, or its number is another's by now."""
    try:
        leader = psutil.Process(row.pid)
        if row.pid_started is None or abs(leader.create_time() - row.pid_started) > 2:
            return None
        found = [leader, *leader.children(recursive=True)]
    except psutil.Error:
        return None
    known, series.processes = series.processes, {}
    cpus, memory = 0.0, 0
    for process in found:
        # The same object as before: it counts from its last look.
        process = known.get(process.pid, process) if known.get(process.pid) == process else process
        series.processes[process.pid] = process
        with contextlib.suppress(psutil.Error):
            cpus += process.cpu_percent() / 100
            memory += process.memory_info().rss
    on_gpu = [gpus[process.pid] for process in found if process.pid in gpus]
    return Sample(
        now,
        round(cpus, 3),
        memory,
        len(found),
        sum(use for _, use in on_gpu) / len(on_gpu) if on_gpu else None,
        sum(memory for memory, _ in on_gpu) if on_gpu else None,
    )


async def _gpu_use() -> dict[int, tuple[int, float]]:
    """By process: its memory on GPUs in bytes, and how much its GPUs are used on average, 0 to 1."""
    use = {words[0]: _number(words[1]) / 100 for words in await _query(_GPU_USE) if len(words) == 2}
    memory: dict[int, int] = defaultdict(int)
    gpus: dict[int, list[float]] = defaultdict(list)
    for words in await _query(_GPU_QUERY):
        if len(words) == 3 and words[0].isdigit():
            memory[int(words[0])] += int(_number(words[1]) * _MIB)
            gpus[int(words[0])].append(use.get(words[2], 0.0))
    return {process: (memory[process], sum(found) / len(found)) for process, found in gpus.items()}


async def _query(command: Sequence[str]) -> list[list[str]]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    output, _ = await process.communicate()
    return [[word.strip() for word in line.split(",")] for line in output.decode("utf-8", "replace").splitlines()]


def _number(text: str) -> float:
    """What nvidia-smi says; what it cannot tell ([N/A]) is 0."""
    try:
        return float(text)
    except ValueError:
        return 0.0
