"""How fast a model translates on one thread: throughput in batches, latency sentence by sentence."""

import contextlib
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.common.progress import Progress
from pipeline.evaluate.scoring import count_words

BATCH_SIZE = 16  # sentences; on one thread larger batches are slower with 8-bit weights and gain little without
WARM_UP_SENTENCES = 4
THROUGHPUT_SECONDS = 3.0
LATENCY_SECONDS = 5.0
LATENCY_SENTENCES = 200

Translate = Callable[[Sequence[str]], object]


def measure_speed(translate: Translate, sentences: Sequence[str], language: str) -> dict[str, Any]:
    """Words per second and latency of `translate`, which takes a batch of sentences and must use one thread.

    Text in, text out: splitting into pieces and joining them counts too. `sentences` must not be empty.
    """
    translate(sentences[:WARM_UP_SENTENCES])
    latencies = latency_seconds(translate, sentences)
    return {
        "words-per-second": round(words_per_second(translate, sentences, language), 1),
        "threads": 1,
        "batch-size": BATCH_SIZE,
        "latency-ms": {
            "median": round(1000 * statistics.median(latencies), 3),
            "p95": round(1000 * percentile(latencies, 95), 3),
            "sentences": len(latencies),
        },
        "processor": processor_name(),
    }


def words_per_second(translate: Translate, sentences: Sequence[str], language: str) -> float:
    """Source words per second of wall time, over batches of sentences of similar length.

    Batches are visited in a seeded random order until three seconds are over, again from the first when all are done:
    a slow model is judged on a fair sample of the lengths, a fast one on the whole set many times.
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
            seconds = time.perf_counter() - start
            if seconds >= THROUGHPUT_SECONDS:
                return done / seconds


def latency_seconds(translate: Translate, sentences: Sequence[str]) -> list[float]:
    """Wall seconds of single sentences, of a seeded sample of at most 200, for at most about five seconds."""
    sample = random.Random(1).sample(sentences, min(LATENCY_SENTENCES, len(sentences)))
    latencies: list[float] = []
    started = time.perf_counter()
    for sentence in sample:
        before = time.perf_counter()
        translate([sentence])
        now = time.perf_counter()
        latencies.append(now - before)
        if now - started >= LATENCY_SECONDS:
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
