"""What training minimises."""

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.train.batches import Alignment

_EPSILON = 1e-6  # Marian's, inside the logarithm of an attention weight


def token_cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Label-smoothed cross-entropy, summed over tokens, in float32.

    `logits` is [N, V], `targets` [N], real tokens only (padding was never gathered). For one token with log
    probabilities log p over V pieces and smoothing e: -(1 - e) log p[target] - e/V sum(log p), that is, the target
    keeps 1 - e and e is spread evenly over the whole vocabulary, the target included (Szegedy et al. 2016; Marian's
    label-smoothing). Divided by the number of tokens this is Marian's ce-mean-words.
    """
    return functional.cross_entropy(logits.float(), targets, reduction="sum", label_smoothing=label_smoothing)


def guided_alignment_cost(
    attention: Tensor, alignment: Alignment, src_mask: Tensor, trg_mask: Tensor, cost: str
) -> Tensor:
    """How far attention [B, T, S] is from the alignment, as a sum over the target tokens, in float32.

    The alignment of a target token is spread evenly over its source tokens, like a distribution a; attention is p.
    `ce` is the cross-entropy -sum_s a[s] log(p[s] + 1e-6) (Chen et al. 2016, "Guided alignment training for
    topic-aware neural machine translation"; Marian's guided-alignment-cost ce). `mse` is Marian's older squared error,
    1/2 sum_s (p[s] - a[s])^2, divided by the number of source tokens. A target token without alignment counts nothing.
    """
    row, target, source = alignment.index.unbind(1)
    attention = attention.float()
    if cost == "ce":
        return -(alignment.weight * torch.log(attention[row, target, source] + _EPSILON)).sum()
    wanted = torch.zeros_like(attention).index_put((row, target, source), alignment.weight)
    aligned = wanted.sum(2, keepdim=True) > 0
    real = src_mask[:, None, :] & trg_mask[:, :, None] & aligned
    squares = torch.where(real, (attention - wanted) ** 2, 0.0).sum((1, 2))
    return 0.5 * (squares / src_mask.sum(1)).sum()
