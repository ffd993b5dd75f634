"""Steps of training on a processor whose derivatives are written by hand.

What autograd makes of the same formulae reads and writes large tensors many times more: conversions between precisions,
copies of heads, a bias that is added in a pass of its own. Matrix products run in `dtype`, sums and softmax in float32,
as under torch.autocast. N positions, B sentences, T and S positions of a sentence, d width, h heads, V pieces.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

# Rows of a product and of its softmax over the vocabulary: the first keeps the product fast, the second the softmax
# within the processor's cache.
_PRODUCT_ROWS, _SOFTMAX_ROWS = 512, 64


@dataclass(frozen=True)
class Packing:
    """Where the N real positions of B sentences of at most T stand, one sentence after the other.

    `real` [N] is the place of each in B * T; `rows` [B * T] the number of the position at a place, 0 at padding; None
    without padding. `columns` [N] are the positions within the sentences.
    """

    sentences: int
    length: int
    columns: Tensor
    real: Tensor | None
    rows: Tensor | None

    @classmethod
    def of(cls, mask: Tensor) -> "Packing":
        """Of a mask [B, T] that is True on real positions."""
        sentences, length = mask.shape
        flat = mask.flatten()
        real = flat.nonzero().view(-1)
        if len(real) == len(flat):
            return cls(sentences, length, real % length, None, None)
        return cls(sentences, length, real % length, real, (flat.cumsum(0) - 1).clamp_(min=0) * flat)

    def pack(self, x: Tensor) -> Tensor:
        """[B, T] as [N]."""
        x = x.flatten()
        return x if self.real is None else x[self.real]

    def padded(self, x: Tensor) -> Tensor:
        """[N, w] as [B * T, w], with anything at padding."""
        return x if self.rows is None else x.index_select(0, self.rows)

    def zero_padded(self, x: Tensor) -> Tensor:
        """[N, w] as [B * T, w], with zeros at padding."""
        if self.real is None:
            return x
        return x.new_zeros(self.sentences * self.length, x.shape[1]).index_copy_(0, self.real, x)

    def heads(self, x: Tensor, parts: int, heads: int) -> Tensor:
        """[B * T, parts * d] as [parts, B * h, T, d / h]."""
        split = x.view(self.sentences, self.length, parts, heads, -1).permute(2, 0, 3, 1, 4)
        return split.reshape(parts, self.sentences * heads, self.length, split.shape[-1])

    def joined(self, x: Tensor, heads: int) -> Tensor:
        """[parts, B * h, T, d / h] as [N, parts * d]."""
        parts, _, length, width = x.shape
        split = x.view(parts, self.sentences, heads, length, width).permute(1, 3, 0, 2, 4)
        flat = split.reshape(self.sentences * length, parts * heads * width)
        return flat if self.real is None else flat.index_select(0, self.real)


def linear(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], dtype: torch.dtype, relu: bool = False
) -> Tensor:
    """x [N, in] times matrices [in, out], side by side, plus biases [1, out], in `dtype`; with `relu`, of that."""
    result: Tensor = _Linear.apply(x, dtype, relu, len(weights), *weights, *biases)  # type: ignore[no-untyped-call]
    return result


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype, relu: bool, count: int, *parameters: Tensor | None) -> Tensor:
        weights, biases = [w for w in parameters[:count] if w is not None], parameters[count:]
        weight = torch.cat([w.to(dtype) for w in weights], 1) if count > 1 else weights[0].to(dtype)
        bias = None
        if any(b is not None for b in biases):
            pairs = zip(weights, biases, strict=True)
            bias = torch.cat([w.new_zeros(1, w.shape[1]) if b is None else b for w, b in pairs], 1).to(dtype).view(-1)
        low = x.to(dtype)
        y: Tensor = torch.ops.mkldnn._linear_pointwise(low, weight.t(), bias, "relu" if relu else "none", [], "")
        ctx.save_for_backward(low, weight, y if relu else None)
        ctx.given, ctx.widths = x.dtype, [w.shape[1] for w in weights]
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, y = ctx.saved_tensors
        if y is not None:
            gradient = torch.ops.aten.threshold_backward(gradient, y, 0)
        x_gradient = torch.mm(gradient, weight.t()).to(ctx.given) if ctx.needs_input_grad[0] else None
        count = len(ctx.widths)
        parameters: list[Tensor | None] = [None] * (2 * count)
        if any(ctx.needs_input_grad[4 : 4 + count]):
            parameters[:count] = [part.float() for part in torch.split(torch.mm(x.t(), gradient), ctx.widths, 1)]
        if any(ctx.needs_input_grad[4 + count :]):
            parameters[count:] = [part.float() for part in torch.split(gradient.sum(0, keepdim=True), ctx.widths, 1)]
        return (
            x_gradient,
            None,
            None,
            None,
            *(part if wanted else None for part, wanted in zip(parameters, ctx.needs_input_grad[4:], strict=True)),
        )


def attention(
    queries: Tensor,
    attended: Tensor | None,
    packings: tuple[Packing, Packing],
    mask: Tensor,
    heads: int,
) -> tuple[Tensor, Tensor]:
    """Contexts [N, d] of queries [N, d] that attend to keys and values [M, 2d]; or, without `attended`, of queries,
    keys and values [N, 3d]. `packings` are those of queries and keys; `mask` is added to scores [B, h, T, S].

    Also the weights [B, T, S] of the first head.
    """
    context, first_head = _Attention.apply(queries, attended, packings, mask, heads)  # type: ignore[no-untyped-call]
    return context, first_head


class _Attention(Function):
    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        attended: Tensor | None,
        packings: tuple[Packing, Packing],
        mask: Tensor,
        heads: int,
    ) -> tuple[Tensor, Tensor]:
        packing, other = packings
        if attended is None:
            q, k, v = packing.heads(packing.padded(queries), 3, heads)
        else:
            (q,) = packing.heads(packing.padded(queries), 1, heads)
            k, v = other.heads(other.padded(attended), 2, heads)
        scale = 1 / math.sqrt(q.shape[-1])
        shape = (packing.sentences, heads, packing.length, other.length)
        scores = torch.bmm(q, k.transpose(1, 2)).float().mul_(scale).view(shape).add_(mask)
        weights = torch.softmax(scores, -1)
        low = weights.to(q.dtype).view(-1, *shape[2:])
        ctx.save_for_backward(q, k, v, weights, low)
        ctx.alone, ctx.packings, ctx.heads, ctx.scale = attended is None, packings, heads, scale
        ctx.set_materialize_grads(False)
        return packing.joined(torch.bmm(low, v)[None], heads), weights[:, 0].clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, first_head: Tensor | None) -> tuple[Tensor | None, ...]:
        q, k, v, weights, low = ctx.saved_tensors
        (packing, other), heads = ctx.packings, ctx.heads
        (gradient,) = packing.heads(packing.zero_padded(gradient), 1, heads)
        of_weights = torch.bmm(gradient, v.transpose(1, 2)).float().view(weights.shape)
        if first_head is not None:
            of_weights[:, 0] += first_head
        scores = torch._softmax_backward_data(of_weights, weights, -1, torch.float32).mul_(ctx.scale).to(q.dtype)
        scores = scores.view(low.shape)
        if ctx.alone:
            joint = torch.empty(3, *q.shape, dtype=q.dtype)
            of_queries, of_keys, of_values = joint
        else:
            of_queries, both = torch.empty_like(q), torch.empty(2, *k.shape, dtype=k.dtype)
            of_keys, of_values = both
        torch.bmm(scores, k, out=of_queries)
        torch.bmm(scores.transpose(1, 2), q, out=of_keys)
        torch.bmm(low.transpose(1, 2), gradient, out=of_values)
        if ctx.alone:
            return packing.joined(joint, heads), None, None, None, None
        return packing.joined(of_queries[None], heads), other.joined(both, heads), None, None, None


def dropout_mask(shape: torch.Size, probability: float) -> tuple[Tensor, float]:
    """Which elements of a tensor on the processor dropout keeps, and what it multiplies them by.

    `probability` is rounded to a multiple of 2^-16: one random number serves four elements, which takes less than half
    the time of torch's dropout.
    """
    count, dropped = shape.numel(), min(round(probability * 65536), 65535)
    bits = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    return bits[:count].view(shape) >= dropped - 32768, 65536 / (65536 - dropped)


def dropout_add(x: Tensor, block_input: Tensor, probability: float) -> Tensor:
    """`block_input` (float32) plus x after dropout (`dropout_mask`), in one pass."""
    result: Tensor = _DropoutAdd.apply(x, block_input, probability)  # type: ignore[no-untyped-call]
    return result


class _DropoutAdd(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, block_input: Tensor, probability: float) -> Tensor:
        mask, ctx.scale = dropout_mask(x.shape, probability)
        kept = mask.float()
        ctx.save_for_backward(kept)
        ctx.given = x.dtype
        return torch.addcmul(block_input, x.float(), kept, value=ctx.scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        (kept,) = ctx.saved_tensors
        return (gradient * kept).mul_(ctx.scale).to(ctx.given), gradient, None


def output_cost(
    states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, label_smoothing: float, dtype: torch.dtype
) -> Tensor:
    """Label-smoothed cross-entropy (`token_cross_entropy`), summed over tokens, of states [N, d], the output layer's
    matrix [V, d] and bias [V], and targets [N].

    With p = softmax(logits), the derivative of a token's cost by its logits is p - (1 - e) [target] - e/V; the last
    term is the same everywhere, so what it adds to other derivatives follows from sums of the states and the matrix.
    """
    result: Tensor = _OutputCost.apply(states, weight, bias, targets, label_smoothing, dtype)  # type: ignore[no-untyped-call]
    return result


class _OutputCost(Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        label_smoothing: float,
        dtype: torch.dtype,
    ) -> Tensor:
        x, w = states.to(dtype), weight.to(dtype).contiguous()
        b = None if bias is None else bias.to(dtype)
        rows, pieces = len(x), len(w)
        gradient = torch.empty(rows, pieces, dtype=dtype)
        of_targets, chances = torch.empty(rows, 1), torch.empty(rows, 1)
        for start in range(0, rows, _PRODUCT_ROWS):
            logits = torch.ops.mkldnn._linear_pointwise(x[start : start + _PRODUCT_ROWS], w, b, "none", [], "")
            of_targets[start : start + _PRODUCT_ROWS] = logits.gather(1, targets[start : start + _PRODUCT_ROWS, None])
            for first in range(0, len(logits), _SOFTMAX_ROWS):
                part = slice(start + first, start + min(first + _SOFTMAX_ROWS, len(logits)))
                p = torch.softmax(logits[first : first + _SOFTMAX_ROWS].float(), 1)
                chances[part] = p.gather(1, targets[part, None])
                gradient[part] = p
        gradient.scatter_(1, targets[:, None], (chances - (1 - label_smoothing)).to(dtype))
        # A chance below the smallest number is not zero: its cost is large, not infinite.
        cost = -chances.clamp_min(torch.finfo(torch.float32).tiny).log().sum()
        x_gradient = torch.mm(gradient, w).float()
        w_gradient = torch.mm(gradient.t(), x).float()
        b_gradient = gradient.sum(0).float() if b is not None else None
        if label_smoothing:
            share = label_smoothing / pieces
            x_sum, w_sum = x.sum(0, dtype=torch.float32), w.sum(0, dtype=torch.float32)
            cost += label_smoothing * of_targets.sum() - share * (x_sum @ w_sum)
            x_gradient -= share * w_sum
            w_gradient -= share * x_sum
            if b is not None and b_gradient is not None:
                cost -= share * rows * b.sum(dtype=torch.float32)
                b_gradient -= share * rows
        ctx.given = states.dtype
        ctx.save_for_backward(x_gradient, w_gradient, b_gradient)
        return cost

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, w, b = ctx.saved_tensors
        return (x * gradient).to(ctx.given), w * gradient, None if b is None else b * gradient, None, None, None
