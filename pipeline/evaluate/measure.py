"""The speed and the memory of a model that translates, measured in a process of its own.

In a process that has done nothing else, the peak of its memory is the model's and its translating. What Python and the
libraries need before a model is loaded is told apart.
"""

import logging
import resource
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from pipeline.common.errors import TransientError
from pipeline.evaluate.loading import Source, load_translator
from pipeline.evaluate.speed import SECONDS, measure_speed

# What every figure means, for metrics.json.
SPEED_MEASURED = (
    "source words (between spaces; characters where a language has none) per second of wall time, text in, text out, "
    "one thread, after a warm-up: words-per-second in batches of sentences of similar length, words-per-second-single "
    "and latency-ms sentence by sentence over a seeded sample"
)
MEMORY_MEASURED = (
    "resident memory of a process that only measures the speed: peak-rss-bytes its peak, before-loading-bytes what the "
    "interpreter and its libraries took before the model was loaded, model-bytes the difference"
)


def measure_model(
    source: Source, sentences: Sequence[str], language: str, seconds: float = SECONDS
) -> tuple[dict[str, Any], dict[str, int]]:
    """The "speed" and the "memory" of metrics.json, measured on one thread in a fresh process.

    Raises what load_translator raises, and TransientError when the process is killed, as it is where memory runs out.
    """
    # Spawned, not forked: a forked process would begin with this one's memory.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_log_like, initargs=(_level(),)) as pool:
        try:
            return pool.submit(_measure, source, list(sentences), language, seconds).result()
        except BrokenProcessPool as error:
            raise TransientError(
                "the process that measures speed and memory was killed, perhaps because memory ran out: "
                "give the task a worker with more memory"
            ) from error


def _measure(
    source: Source, sentences: list[str], language: str, seconds: float
) -> tuple[dict[str, Any], dict[str, int]]:
    torch.set_num_threads(1)
    before = peak_memory()
    translator = load_translator(source, threads=1)
    speed = measure_speed(translator.translate, sentences, language, seconds)
    peak = peak_memory()
    return speed, {"peak-rss-bytes": peak, "before-loading-bytes": before, "model-bytes": peak - before}


def peak_memory() -> int:
    """The largest resident memory that this process has had so far, in bytes.

    Linux hands getrusage's peak on to whatever a process executes, so that a child would begin with its parent's; the
    VmHWM line of /proc is the process's own.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, others kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _level() -> int:
    return logging.getLogger().getEffectiveLevel()


def _log_like(level: int) -> None:
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
