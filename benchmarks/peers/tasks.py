"""What a peer is asked to do, and how it answers. Only the standard library: every peer's environment can import it."""

import dataclasses
import json
import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

MARK = "measured: "  # before the JSON of a measurement, among whatever else a peer prints


@dataclass(frozen=True)
class Architecture:
    """A transformer with post-normalisation, relu, and one matrix for source, target and output."""

    enc_depth: int
    dec_depth: int
    width: int
    ffn: int
    heads: int


ARCHITECTURES = {"tiny": Architecture(6, 2, 256, 1536, 8), "small": Architecture(3, 3, 256, 1024, 4)}


@dataclass(frozen=True)
class SpeedTask:
    """Train some updates and say how long those after the warm-up took.

    `train` are the two sides as plain text, `batches` the same sentences in batches for a loop that takes them ready
    (a .npz of src_0, src_mask_0, trg_0, trg_mask_0, …). `tuned` gives the peer the settings that Limbeck chooses by
    itself: bfloat16, attention by plain products, fused Adam (and the allocator's, by the environment).
    """

    train: tuple[str, str]
    dev: tuple[str, str]
    vocab: str
    batches: str
    architecture: Architecture
    tuned: bool
    threads: int
    words: int
    sentences: int
    warm_up: int
    updates: int
    folder: str
    dropout: float = 0.1
    label_smoothing: float = 0.1
    clip_norm: float = 1.0
    learn_rate: float = 3e-4

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, path: str) -> "SpeedTask":
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        values["architecture"] = Architecture(**values["architecture"])
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


@dataclass(frozen=True)
class Measurement:
    """Target tokens, ends of sentence included and padding not, with the CPU seconds (user and system, of the process
    and its children) and wall seconds that they took.
    """

    tokens: int
    cpu: float
    wall: float

    @staticmethod
    def is_in(output: str) -> bool:
        return any(line.startswith(MARK) for line in output.splitlines())

    @classmethod
    def find(cls, output: str) -> "Measurement":
        """The measurement in what a peer printed. Raises ValueError when there is none."""
        for line in output.splitlines():
            if line.startswith(MARK):
                return cls(**json.loads(line.removeprefix(MARK)))
        raise ValueError(f"no measurement in the output:\n{output[-3000:]}")


class Stopwatch:
    """Counts updates: starts behind the warm-up, prints the measurement behind the last one."""

    def __init__(self, warm_up: int, updates: int) -> None:
        self.warm_up, self.last = warm_up, warm_up + updates
        self.seen = self.tokens = 0
        self.cpu = self.wall = 0.0

    def update(self, tokens: int) -> bool:
        """An update of so many target tokens has ended. Returns whether it was the last."""
        self.seen += 1
        if self.seen > self.warm_up:
            self.tokens += tokens
        if self.seen == self.warm_up:
            self.cpu, self.wall = cpu_seconds(), time.monotonic()
        if self.seen == self.last:
            measurement = Measurement(self.tokens, cpu_seconds() - self.cpu, time.monotonic() - self.wall)
            print(MARK + json.dumps(dataclasses.asdict(measurement)), flush=True)
        return self.seen >= self.last


def cpu_seconds() -> float:
    """User and system seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def running_cpu_seconds(process: int) -> float:
    """User and system seconds of another process, while it runs (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def task_of_command_line() -> SpeedTask:
    return SpeedTask.load(sys.argv[1])
