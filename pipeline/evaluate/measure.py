"""The speed and the memory of a model that translates, measured in a process of its own.

In a process that has done nothing else, the peak of its memory is the model's and its translating. What Python and the
libraries need before a model is loaded is told apart.
"""

import logging
import resource
import signal
import sys
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from pipeline.common.errors import TransientError, UserError
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

    Raises what load_translator raises, TransientError when the process is killed, as it is where memory runs out, and
    UserError when it crashes.
    """
    # Spawned, not forked: a forked process would begin with this one's memory.
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    level = logging.getLogger().getEffectiveLevel()
    process = context.Process(
        target=_measure_and_send, args=(sender, level, source, list(sentences), language, seconds), daemon=True
    )
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        process.join()
        raise _ended(process.exitcode) from None
    finally:
        # Does nothing to a process that has ended; this one may have been interrupted.
        process.terminate()
        process.join()
    if isinstance(result, Exception):
        raise result
    speed, memory = result
    return speed, memory


def _ended(exit_code: int | None) -> UserError | TransientError:
    what = "the process that measures speed and memory"
    if exit_code == -signal.SIGKILL:
        return TransientError(f"{what} was killed, perhaps because memory ran out: use a machine with more memory")
    return UserError(f"{what} ended without a result, with exit code {exit_code}: its own messages stand above")


def _measure_and_send(
    sender: Connection, level: int, source: Source, sentences: list[str], language: str, seconds: float
) -> None:
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        sender.send(_measure(source, sentences, language, seconds))
    except (UserError, TransientError) as error:
        sender.send(error)


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
