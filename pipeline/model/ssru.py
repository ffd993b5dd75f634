"""The simpler simple recurrent unit, which a fast student's decoder has in place of self-attention.

Kim et al. (2019), From Research to Production and Back: Ludicrously Fast Neural Machine Translation: with x_t = W i_t
and a forget gate f_t = sigmoid(W_f i_t + b_f), the state is c_t = f_t c_{t-1} + (1 - f_t) x_t and the output relu(c_t).
"""

from typing import Any

import torch
from torch import Tensor


def ssru_states(x: Tensor, forget: Tensor) -> Tensor:
    """States c [B, T, d], float32, of inputs x and forget gates [B, T, d] in any floating type; c_0 is zero.

    One elementwise operation per position in each direction, in float32 whatever the autocast: products of gates, with
    which the recurrence could be computed in parallel, underflow after some dozens of positions.
    """
    states: Tensor = _Recurrence.apply(x.float(), forget.float())  # type: ignore[no-untyped-call]
    return states


def ssru_step(x: Tensor, forget: Tensor, previous: Tensor | None) -> Tensor:
    """The next state, float32, of one more input; `previous` None is the state before the first."""
    x, forget = x.float(), forget.float()
    return torch.lerp(x, torch.zeros_like(x) if previous is None else previous, forget)


class _Recurrence(torch.autograd.Function):
    """The recurrence and its gradient, without a graph of as many nodes as positions.

    Written as c_t = x_t + f_t (c_{t-1} - x_t), a linear interpolation. Backwards the whole gradient of a state is
    g_t = grad_t + f_{t+1} g_{t+1}, and with it x_t gets (1 - f_t) g_t and f_t gets (c_{t-1} - x_t) g_t.
    """

    @staticmethod
    def forward(context: Any, x: Tensor, forget: Tensor) -> Tensor:
        # Time first: every position is one contiguous piece of memory.
        x, forget = x.transpose(0, 1).contiguous(), forget.transpose(0, 1).contiguous()
        states = torch.empty_like(x)
        previous = x.new_zeros(x.shape[1:])
        for now, gate, state in zip(x, forget, states, strict=True):
            previous = torch.lerp(now, previous, gate, out=state)
        context.save_for_backward(x, forget, states)
        return states.transpose(0, 1)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x, forget, states = context.saved_tensors
        whole = gradients[0].transpose(0, 1).float().clone(memory_format=torch.contiguous_format)
        for place in range(len(whole) - 2, -1, -1):
            whole[place].addcmul_(forget[place + 1], whole[place + 1])
        before = torch.cat([torch.zeros_like(states[:1]), states[:-1]])
        return (whole * (1 - forget)).transpose(0, 1), (whole * (before - x)).transpose(0, 1)
