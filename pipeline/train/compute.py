"""Where and how precisely to compute: chosen once, said in the log."""

import contextlib
import ctypes
import logging
import os
from dataclasses import dataclass

import torch

from pipeline.common.errors import UserError

logger = logging.getLogger(__name__)

_DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """The device, the number of processor threads, and the type that matrix products run in (None: float32)."""

    device: torch.device
    threads: int
    dtype: torch.dtype | None = None

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Inside, matrix products run in the chosen precision. Parameters, sums and losses stay float32."""
        if self.dtype is None:
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[None] = torch.autocast(self.device.type, self.dtype)
        return context

    def scaler(self) -> torch.amp.GradScaler:
        """Scales losses so that float16 gradients do not vanish (Micikevicius et al. 2018); does nothing otherwise."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)


def choose_device(asked: str = "auto") -> str:
    """cpu or cuda, for auto, cpu or cuda; auto is the value of LIMBECK_DEVICE, or else a GPU if there is one.

    Raises UserError when a GPU is asked for (here, by LIMBECK_DEVICE or CUDA_VISIBLE_DEVICES) and none can be used:
    training on a processor by surprise would take days.
    """
    device = os.environ.get("LIMBECK_DEVICE", "auto") if asked == "auto" else asked
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"{device!r} is not a device: LIMBECK_DEVICE and --device are auto, cpu or cuda")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    named = visible not in ("", "-1", "NoDevFiles")
    if not torch.cuda.is_available() and (device == "cuda" or (device == "auto" and named)):
        reason = "--device or LIMBECK_DEVICE" if device == "cuda" else f"CUDA_VISIBLE_DEVICES={visible}"
        built = "finds none" if torch.version.cuda else f"({torch.__version__}) is built without CUDA"
        raise UserError(f"a GPU is asked for by {reason}, but torch {built}: install a CUDA build or ask for cpu")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def choose_compute(device: str = "auto", precision: str = "auto") -> Compute:
    """Choose device (see `choose_device`) and precision, set torch's threads, and log the choice with its reasons.

    Processor threads are LIMBECK_CPUS, or all that this process may use. On several GPUs the current one is taken.
    Raises UserError when the device cannot compute in that precision.
    """
    threads = _cpu_threads()
    torch.set_num_threads(threads)
    if choose_device(device) == "cuda":
        return _on_cuda(precision, threads)
    return _on_cpu(precision, threads)


def _on_cuda(precision: str, threads: int) -> Compute:
    name = torch.cuda.get_device_name()
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bfloat16" and not has_bfloat16:
        raise UserError(f"precision bfloat16 is asked for, but {name} has no bfloat16: use float16, float32 or auto")
    why = "the GPU has bfloat16 units" if has_bfloat16 else "the GPU has no bfloat16 units"
    best = "bfloat16" if has_bfloat16 else "float16" if torch.cuda.get_device_capability() >= (7, 0) else "float32"
    chosen = best if precision == "auto" else precision
    # TF32 has the range of float32 and the mantissa of float16: faster where an explicit float32 is not asked for.
    torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
    logger.info(f"training: on {name}, {_describe(chosen, precision, why)}")
    return Compute(torch.device("cuda", torch.cuda.current_device()), threads, _DTYPES[chosen])


def _on_cpu(precision: str, threads: int) -> Compute:
    has_bfloat16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    chosen = precision if precision != "auto" else "bfloat16" if has_bfloat16 else "float32"
    torch.set_float32_matmul_precision("highest")
    if chosen == "float16":
        raise UserError("precision float16 is for GPUs, processors take hours for it: use bfloat16, float32 or auto")
    if chosen == "bfloat16" and not has_bfloat16:
        logger.warning(
            "training: precision bfloat16 is asked for, but this processor has no bfloat16 units: it is slow"
        )
    why = "the processor has bfloat16 units" if has_bfloat16 else "the processor has no bfloat16 units"
    kept = "; freed memory is kept for the next update" if _keep_freed_memory() else ""
    logger.info(f"training: on {threads} processor thread(s), {_describe(chosen, precision, why)}{kept}")
    return Compute(torch.device("cpu"), threads, _DTYPES[chosen])


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


def _describe(chosen: str, asked: str, why: str) -> str:
    what = "everything in float32" if chosen == "float32" else f"matrix products in {chosen}"
    return f"{what}, because {why}" if asked == "auto" else f"{what}, as asked"


def _cpu_threads() -> int:
    given = os.environ.get("LIMBECK_CPUS", "").strip()
    if not given:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not given.isdecimal() or int(given) < 1:
        raise UserError(f"LIMBECK_CPUS must be a whole number of processors, but is {given!r}")
    return int(given)
