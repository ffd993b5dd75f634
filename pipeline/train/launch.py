"""Training on all GPUs of this machine: one process for each, started by torch's own launcher."""

import logging
import os
import sys
from collections.abc import Sequence

import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from pipeline.common.errors import EXIT_RETRY, TransientError

logger = logging.getLogger(__name__)


def processes_wanted(device: str) -> int:
    """How many processes to start: the GPUs that this process may use, 1 on a processor and inside torchrun."""
    if device != "cuda" or "WORLD_SIZE" in os.environ:
        return 1
    return max(torch.cuda.device_count(), 1)


def launch_processes(count: int, arguments: Sequence[str] | None) -> None:
    """Run `python -m pipeline.train.train` with these arguments in `count` processes and wait for them.

    Raises TransientError when they were told to stop and can go on from their checkpoint; exits with their code when
    one failed, which has said why.
    """
    logger.info(f"training: {count} processes, one for each GPU")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id="train",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="spawn",
    )
    command = ["-m", "pipeline.train.train", *(sys.argv[1:] if arguments is None else arguments)]
    try:
        elastic_launch(config, sys.executable)(*command)
    except SignalException as stopped:
        raise TransientError(f"stopped by {stopped.sigval.name}: run again with the same folders to continue") from None
    except ChildFailedError as failed:
        codes = [failure.exitcode for failure in failed.failures.values()]
        if EXIT_RETRY in codes:
            raise TransientError("stopped: run again with the same folders to continue") from None
        sys.exit(next((code for code in codes if code > 0), 1))
