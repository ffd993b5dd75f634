"""The recurrence of a fast student's decoder."""

import pytest
import torch

from pipeline.model.ssru import ssru_states, ssru_step


def plain(x, forget):
    """The formula, position by position, as autograd sees it."""
    state, states = torch.zeros_like(x[:, 0]), []
    for place in range(x.shape[1]):
        state = forget[:, place] * state + (1 - forget[:, place]) * x[:, place]
        states.append(state)
    return torch.stack(states, dim=1)


@pytest.mark.parametrize("length", [1, 2, 30])
def test_states_and_gradients_are_those_of_the_formula(length):
    torch.manual_seed(length)
    x, gates, weight = (torch.randn(3, length, 8) for _ in range(3))
    gradients = []
    for function in (ssru_states, plain):
        inputs = [x.clone().requires_grad_(), gates.clone().requires_grad_()]
        states = function(inputs[0], torch.sigmoid(3 * inputs[1]))
        (states * weight).sum().backward()
        gradients.append([states.detach(), *(value.grad for value in inputs)])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_gates_that_forget_at_once_or_never_over_long_sentences():
    x = torch.randn(1, 2000, 4)
    assert torch.equal(ssru_states(x, torch.zeros_like(x)), x)
    forget = torch.full_like(x, 1 - 1e-7)
    forget[:, 0] = 0
    torch.testing.assert_close(ssru_states(x, forget)[:, -1], x[:, 0], atol=1e-2, rtol=0)


def test_under_autocast_the_state_is_kept_in_float32():
    x, forget = torch.randn(2, 300, 8), torch.rand(2, 300, 8)
    states = ssru_states(x.bfloat16(), forget.bfloat16())
    assert states.dtype == torch.float32
    torch.testing.assert_close(states, plain(x.bfloat16().float(), forget.bfloat16().float()), atol=1e-5, rtol=1e-5)


def test_steps_equal_the_whole():
    x, forget = torch.randn(2, 6, 8), torch.rand(2, 6, 8)
    states, state = ssru_states(x, forget), None
    for place in range(6):
        state = ssru_step(x[:, place], forget[:, place], state)
        torch.testing.assert_close(state, states[:, place])
