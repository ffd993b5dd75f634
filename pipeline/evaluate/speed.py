"""How fast a model translates on one thread: throughput in batches, latency sentence by sentence."""

import contextlib
import platform
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.common.progress import Progress
from pipeline.evaluate.scoring import count_words

BATCH_SIZE = 16  # sentences; on one thread larger batches are slower with 8-bit weights and gain little without
LATENCY_SENTENCES = 200
SECONDS = 8.0  # of wall time for the measurements of a model

Translate = Callable[[Sequence[str]], object]


def measure_speed(
    translate: Translate, sentences: Sequence[str], language: str, seconds: float = SECONDS
) -> dict[str, Any]:
    """Words per second and latency of `translate`, which takes a batch of sentences and must use one thread.

    About `seconds` of wall time, half of it for batches and half for single sentences.
    Text in, text out: splitting into pieces and joining them counts too. `sentences` must not be empty. What is
    translated first, the batch of the longest sentences, warms up caches and memory, and is not measured.
    """
    translate([sentences[index] for index in length_batches(sentences, BATCH_SIZE)[0]])
    sample = latency_sample(sentences)
    latencies = latency_seconds(translate, sample, seconds / 2)
    single = count_words(sample[: len(latencies)], language) / sum(latencies)
    milliseconds = [1000 * seconds for seconds in latencies]
    return {
        "words-per-second": round(words_per_second(translate, sentences, language, seconds / 2), 1),
        "words-per-second-single": round(single, 1),
        "threads": 1,
        "batch-size": BATCH_SIZE,
        "latency-ms": {
            "median": round(percentile(milliseconds, 50), 3),
            **{f"p{percent}": round(percentile(milliseconds, percent), 3) for percent in (50, 90, 95, 99)},
            "sentences": len(latencies),
        },
        "processor": processor_name(),
    }


def words_per_second(translate: Translate, sentences: Sequence[str], language: str, seconds: float) -> float:
    """Source words per second of wall time, over batches of sentences of similar length.

    Batches are visited in a seeded random order until `seconds` are over, again from the first when all are done: a
    slow model is judged on a fair sample of the lengths, a fast one on the whole set many times.
    """
    batches = [[sentences[index] for index in batch] for batch in length_batches(sentences, BATCH_SIZE)]
    random.Random(1).shuffle(batches)
    words = [count_words(batch, language) for batch in batches]
    progress = Progress("measuring speed", "words")
    done, start = 0, time.perf_counter()
    while True:
        for batch, count in zip(batches, words, strict=True):
            translate(batch)
            done += count
            progress.add(count)
            passed = time.perf_counter() - start
            if passed >= seconds:
                return done / passed


def latency_sample(sentences: Sequence[str]) -> list[str]:
    """A seeded sample of at most 200 sentences that are not empty."""
    filled = [sentence for sentence in sentences if sentence.strip()]
    return random.Random(1).sample(filled, min(LATENCY_SENTENCES, len(filled)))


def latency_seconds(translate: Translate, sentences: Sequence[str], seconds: float) -> list[float]:
    """Wall seconds of single sentences, one after the other, until all are done or about `seconds` are over."""
    latencies: list[float] = []
    started = time.perf_counter()
    for sentence in sentences:
        before = time.perf_counter()
        translate([sentence])
        now = time.perf_counter()
        latencies.append(now - before)
        if now - started >= seconds:
            break
    return latencies


def length_batches(sentences: Sequence[str], size: int) -> list[list[int]]:
    """Indices of the sentences in batches of similar length, the longest first."""
    order = sorted(range(len(sentences)), key=lambda index: (-len(sentences[index]), index))
    return [order[start : start + size] for start in range(0, len(order), size)]


def percentile(values: Sequence[float], percent: float) -> float:
    """The percentile of values, by linear interpolation between the two nearest."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def processor_name() -> str:
    """The processor's name as the operating system tells it; its architecture where there is no name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
