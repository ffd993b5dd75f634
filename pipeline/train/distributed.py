"""Several processes that train one model together, on one machine or many, as torchrun starts them.

Every process holds the whole model and computes the gradients of its part of each update; their sum is taken by all,
so that all take the same step. No wrapper stands around the model: gradients are summed once per update, after its
last micro-batch, in a few large pieces.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from pipeline.common.errors import UserError

_PIECE = 1 << 26  # elements summed in one go, 256 MB: large enough to hide latency, small enough to copy
_PATIENCE = timedelta(hours=2)  # reading and cutting a large corpus may keep one process busy so long


@dataclass(frozen=True)
class Processes:
    """This process among those that train together: `rank` of `count`, the `local_rank`-th on its machine.

    All calls below but the properties are collective: every process makes them in the same order. Alone they cost
    nothing.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    # A group of its own for the thread that prepares data, so that its exchanges and the trainer's never mix.
    data_group: Any = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over the processes; one that a process does not have counts as zero."""
        if self.count == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for piece in _pieces([parameter.grad for parameter in trained if parameter.grad is not None]):
            flat = torch.cat([gradient.reshape(-1) for gradient in piece])
            distributed.all_reduce(flat)
            parts = torch.split(flat, [gradient.numel() for gradient in piece])
            torch._foreach_copy_(
                list(piece), [part.view_as(gradient) for part, gradient in zip(parts, piece, strict=True)]
            )

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums of these values over the processes."""
        if self.count == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(total)
        return total.tolist()

    def gather(self, item: Any) -> list[Any]:
        """What each process gave, in the order of their ranks, for all of them."""
        if self.count == 1:
            return [item]
        items: list[Any] = [None] * self.count
        distributed.all_gather_object(items, item)
        return items

    def gather_data(self, item: Any) -> list[Any]:
        """`gather` for the thread that prepares data."""
        items: list[Any] = [None] * self.count
        distributed.all_gather_object(items, item, group=self.data_group)
        return items

    def from_first(self, item: Any) -> Any:
        """What the first process gave, for all of them."""
        if self.count == 1:
            return item
        items = [item]
        distributed.broadcast_object_list(items, src=0)
        return items[0]


def join_processes(device: str) -> Processes:
    """Join the processes that torchrun started (by its variables RANK, WORLD_SIZE and LOCAL_RANK), or be alone.

    `device` is cpu or cuda; with cuda each process of a machine takes the GPU of its local rank. Raises UserError when
    a machine has fewer GPUs than processes.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"process {local_rank + 1} of this machine has no GPU: there are {torch.cuda.device_count()}; "
                "give torchrun --nproc-per-node that many"
            )
        torch.cuda.set_device(local_rank)
    if count == 1:
        return Processes()
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=_PATIENCE)
    data_group = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    return Processes(int(os.environ["RANK"]), count, local_rank, data_group)


def leave_processes() -> None:
    """End what `join_processes` began."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _pieces(gradients: Sequence[Tensor]) -> list[list[Tensor]]:
    """Gradients one after the other, in pieces of about `_PIECE` elements."""
    pieces: list[list[Tensor]] = []
    size = _PIECE
    for gradient in gradients:
        if size >= _PIECE:
            pieces.append([])
            size = 0
        pieces[-1].append(gradient)
        size += gradient.numel()
    return pieces
