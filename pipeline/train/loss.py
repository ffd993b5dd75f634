"""What training minimises: costs of real tokens, summed over them, in float32.

A weighted sum of these, divided by the number of target tokens of an update, is the objective (`objective.py`).
N real tokens, V target pieces, B sentences, S source and T target positions, d width.
"""

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.train.batches import Alignment, Distributions

_EPSILON = 1e-6  # Marian's, inside the logarithm of an attention weight


def token_cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Label-smoothed cross-entropy, summed over tokens, in float32.

    `logits` is [N, V], `targets` [N], real tokens only (padding was never gathered). For one token with log
    probabilities log p over V pieces and smoothing e: -(1 - e) log p[target] - e/V sum(log p), that is, the target
    keeps 1 - e and e is spread evenly over the whole vocabulary, the target included (Szegedy et al. 2016; Marian's
    label-smoothing). Divided by the number of tokens this is Marian's ce-mean-words.
    """
    return functional.cross_entropy(logits.float(), targets, reduction="sum", label_smoothing=label_smoothing)


def word_distillation_cost(logits: Tensor, teacher_scores: Tensor, temperature: float = 1.0) -> Tensor:
    """Word-level knowledge distillation: temperature^2 KL(teacher || student), summed over tokens.

    `logits` [N, V] are the student's, `teacher_scores` [N, V] the teacher's logits or log-probabilities. With
    q = softmax(teacher_scores / temperature) and p = softmax(logits / temperature), a token costs
    temperature^2 sum_v q[v] (log q[v] - log p[v]). The factor keeps the size of the gradients, which softening makes
    smaller by as much (Hinton et al. 2015, "Distilling the knowledge in a neural network", section 2; for translation:
    Kim and Rush 2016, "Sequence-level knowledge distillation", section 3.1).
    """
    student = functional.log_softmax(logits.float() / temperature, dim=-1)
    teacher = functional.log_softmax(teacher_scores.float() / temperature, dim=-1)
    return temperature**2 * functional.kl_div(student, teacher, reduction="sum", log_target=True)


def stored_distillation_cost(logits: Tensor, stored: Distributions) -> Tensor:
    """Word-level distillation from the k likeliest pieces that an earlier run of the teacher stored, summed over
    tokens.

    `logits` is [N, V], k below V. All pieces that were not stored count as one more outcome, whose probability is what
    the stored ones q leave: with r = 1 - sum q, and s the student's probability of all of them together, a token costs
    sum_k q[k] (log q[k] - log p[k]) + r (log r - log s). That is the cross-entropy against the stored distribution less
    the teacher's own entropy, a constant: 0 for a student that agrees, and, unlike with probabilities made to sum to
    one (Tan et al. 2019, "Multilingual neural machine translation with knowledge distillation"), a student
    is not driven to be more certain than its teacher was. It is never above KL(teacher || student).
    """
    scores = logits.float()
    total = scores.logsumexp(-1)
    kept = scores.gather(1, stored.ids) - total[:, None]
    rest = scores.scatter(1, stored.ids, float("-inf")).logsumexp(-1) - total
    stored_rest = (1.0 - stored.probabilities.sum(-1)).clamp(min=0.0)
    entropy: Tensor = torch.special.entr(stored.probabilities).sum() + torch.special.entr(stored_rest).sum()
    cross_entropy: Tensor = -(stored.probabilities * kept).sum() - (stored_rest * rest).sum()
    return cross_entropy - entropy


def cosine_cost(student: Tensor, teacher: Tensor) -> Tensor:
    """Hidden states [N, d] that point elsewhere than the teacher's [N, d]: 1 - cos(student, teacher), summed over
    tokens (Sanh et al. 2019, "DistilBERT").
    """
    return (1.0 - functional.cosine_similarity(student.float(), teacher.float(), dim=-1)).sum()


def normalised_squares_cost(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared differences of hidden states [N, d], each normalised to mean 0 and variance 1 over its d values; the mean
    over these, summed over tokens.

    The squared error of TinyBERT (Jiao et al. 2020), on normalised states, as Shleifer and Rush (2020, "Pre-trained
    summarization distillation") compare them: teacher and student need not agree on how large their states are.
    """
    width = student.shape[-1:]
    difference = functional.layer_norm(student.float(), width) - functional.layer_norm(teacher.float(), width)
    return difference.square().mean(-1).sum()


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
