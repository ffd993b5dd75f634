"""Where and how precisely to compute: chosen once, said in the log."""

import contextlib
import ctypes
import logging
import os
from dataclasses import dataclass

import torch

from pipeline.common.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compute:
    """The device, the number of processor threads, and whether matrix products run in bfloat16."""

    device: torch.device
    threads: int
    bfloat16: bool

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Inside, matrix products run in the chosen precision. Parameters, sums and losses stay float32."""
        if not self.bfloat16:
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[None] = torch.autocast(self.device.type, torch.bfloat16)
        return context


def choose_compute(device: str = "auto", precision: str = "auto") -> Compute:
    """Choose device and precision, set torch's threads, and log the choice with its reasons.

    `device` is auto, cpu or cuda; auto is the value of the variable LIMBECK_DEVICE, or else a GPU if there is one.
    Processor threads are LIMBECK_CPUS, or all that this process may use. Raises UserError when a GPU is asked for (by
    `device`, LIMBECK_DEVICE or CUDA_VISIBLE_DEVICES) and none can be used: training on a processor by surprise would
    take days.
    """
    asked = os.environ.get("LIMBECK_DEVICE", "auto") if device == "auto" else device
    if asked not in ("auto", "cpu", "cuda"):
        raise UserError(f"{asked!r} is not a device: LIMBECK_DEVICE and --device are auto, cpu or cuda")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    named = visible not in ("", "-1", "NoDevFiles")
    if not torch.cuda.is_available() and (asked == "cuda" or (asked == "auto" and named)):
        reason = "--device or LIMBECK_DEVICE" if asked == "cuda" else f"CUDA_VISIBLE_DEVICES={visible}"
        built = "finds none" if torch.version.cuda else f"({torch.__version__}) is built without CUDA"
        raise UserError(f"a GPU is asked for by {reason}, but torch {built}: install a CUDA build or ask for cpu")
    use_cuda = asked != "cpu" and torch.cuda.is_available()
    threads = _cpu_threads()
    torch.set_num_threads(threads)
    if use_cuda:
        return _on_cuda(precision, threads)
    return _on_cpu(precision, threads)


def _on_cuda(precision: str, threads: int) -> Compute:
    name = torch.cuda.get_device_name()
    fast = torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bfloat16" and not fast:
        raise UserError(f"precision bfloat16 is asked for, but {name} has no bfloat16: use float32 or auto")
    bfloat16 = precision != "float32" and fast
    # TF32 has the range of float32 and the mantissa of float16: faster where an explicit float32 is not asked for.
    torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
    logger.info(f"training: on {name}, {_describe(bfloat16, precision, 'the GPU has bfloat16 units')}")
    return Compute(torch.device("cuda"), threads, bfloat16)


def _on_cpu(precision: str, threads: int) -> Compute:
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    bfloat16 = precision == "bfloat16" or (precision == "auto" and fast)
    torch.set_float32_matmul_precision("highest")
    if precision == "bfloat16" and not fast:
        logger.warning(
            "training: precision bfloat16 is asked for, but this processor has no bfloat16 units: it is slow"
        )
    why = "the processor has bfloat16 units" if fast else "the processor has no bfloat16 units"
    kept = "; freed memory is kept for the next update" if _keep_freed_memory() else ""
    logger.info(f"training: on {threads} processor thread(s), {_describe(bfloat16, precision, why)}{kept}")
    return Compute(torch.device("cpu"), threads, bfloat16)


def _keep_freed_memory() -> bool:
    """Tell glibc's allocator to reuse large blocks instead of giving them back to the system each time.

    Getting them back page by page takes a sixth of the time of a small model's update. Returns whether it was possible.
    """
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_MAX of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    return all(mallopt(*pair) for pair in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 1 << 28)))


def _describe(bfloat16: bool, precision: str, why: str) -> str:
    chosen = "matrix products in bfloat16" if bfloat16 else "everything in float32"
    return f"{chosen}, because {why}" if precision == "auto" else f"{chosen}, as asked"


def _cpu_threads() -> int:
    given = os.environ.get("LIMBECK_CPUS", "").strip()
    if not given:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not given.isdecimal() or int(given) < 1:
        raise UserError(f"LIMBECK_CPUS must be a whole number of processors, but is {given!r}")
    return int(given)
