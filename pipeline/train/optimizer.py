"""Adam, gradient clipping and exponential smoothing, with Marian's parameters."""

import copy
from collections.abc import Iterable

import torch
from torch import nn

from pipeline.model.transformer import Transformer
from pipeline.train.options import TrainingOptions


def make_optimizer(parameters: Iterable[nn.Parameter], options: TrainingOptions) -> torch.optim.Optimizer:
    """Adam; `optimizer-params` are beta1, beta2 and epsilon. Fused: one pass over the memory."""
    beta1, beta2, epsilon = options.optimizer_params
    return torch.optim.Adam(parameters, lr=options.learn_rate, betas=(beta1, beta2), eps=epsilon, fused=True)


def smoothed_copy(model: Transformer, options: TrainingOptions) -> Transformer | None:
    """The model that holds the smoothed parameters, or None without exponential smoothing."""
    if not options.exponential_smoothing:
        return None
    return copy.deepcopy(model).eval().requires_grad_(False)


@torch.no_grad()
def smooth(smoothed: Transformer, model: Transformer, smoothing: float, updates: int) -> None:
    """Move the smoothed parameters towards the model's, after the update with number `updates` (from 1).

    The moving average keeps min(1 - smoothing, (updates + 1) / (updates + 10)) of itself, as Marian's does: in early
    training it forgets faster, so that it does not stay at the random beginning.
    """
    decay = min(1.0 - smoothing, (updates + 1) / (updates + 10))
    torch._foreach_lerp_(list(smoothed.parameters()), list(model.parameters()), 1.0 - decay)
