"""What the machine offers."""

import os

import ctranslate2


def cpu_threads() -> int:
    """Processors this task may use: LIMBECK_CPUS, which an engine sets, else those of the process."""
    given = os.environ.get("LIMBECK_CPUS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_gpu() -> bool:
    """Whether a CUDA device can be used."""
    return int(ctranslate2.get_cuda_device_count()) > 0
