import math

import pytest
import torch

from pipeline.train.batches import Alignment, Distributions
from pipeline.train.loss import (
    cosine_cost,
    guided_alignment_cost,
    normalised_squares_cost,
    stored_distillation_cost,
    token_cross_entropy,
    word_distillation_cost,
)


def test_cross_entropy_is_the_sum_over_tokens() -> None:
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]])
    cost = token_cross_entropy(probabilities.log() + 3.0, torch.tensor([1, 2]))
    assert cost.item() == pytest.approx(-math.log(0.25) - math.log(0.7), rel=1e-6)


def test_label_smoothing_spreads_over_the_whole_vocabulary() -> None:
    probabilities = torch.tensor([[0.5, 0.25, 0.25]])
    cost = token_cross_entropy(probabilities.log(), torch.tensor([0]), label_smoothing=0.3)
    target = -math.log(0.5)
    uniform = -(math.log(0.5) + 2 * math.log(0.25)) / 3
    assert cost.item() == pytest.approx(0.7 * target + 0.3 * uniform, rel=1e-6)


def test_logits_of_lower_precision_are_summed_in_float32() -> None:
    logits = torch.zeros(5000, 8, dtype=torch.bfloat16)
    assert token_cross_entropy(logits, torch.zeros(5000, dtype=torch.long)).item() == pytest.approx(5000 * math.log(8))


ATTENTION = torch.tensor([[[0.8, 0.2, 0.0], [0.5, 0.5, 0.0]], [[0.1, 0.6, 0.3], [0.3, 0.3, 0.4]]])
SRC_MASK = torch.tensor([[True, True, False], [True, True, True]])
TRG_MASK = torch.tensor([[True, False], [True, True]])
# first pair: 0 <- 0; second pair: target 0 <- sources 1 and 2, target 1 has no alignment
ALIGNMENT = Alignment(torch.tensor([[0, 0, 0], [1, 0, 1], [1, 0, 2]]), torch.tensor([1.0, 0.5, 0.5]))


def test_guided_alignment_cross_entropy() -> None:
    cost = guided_alignment_cost(ATTENTION, ALIGNMENT, SRC_MASK, TRG_MASK, "ce")
    assert cost.item() == pytest.approx(-math.log(0.8) - 0.5 * math.log(0.6) - 0.5 * math.log(0.3), abs=1e-5)


def test_guided_alignment_squared_error() -> None:
    cost = guided_alignment_cost(ATTENTION, ALIGNMENT, SRC_MASK, TRG_MASK, "mse")
    first = (0.2**2 + 0.2**2) / 2
    second = (0.1**2 + 0.1**2 + 0.2**2) / 3
    assert cost.item() == pytest.approx(0.5 * (first + second), rel=1e-5)


@pytest.mark.parametrize("cost", ["ce", "mse"])
def test_attention_that_is_the_alignment_costs_least(cost: str) -> None:
    attention = torch.zeros(2, 2, 3).index_put(tuple(ALIGNMENT.index.unbind(1)), ALIGNMENT.weight)
    perfect = guided_alignment_cost(attention, ALIGNMENT, SRC_MASK, TRG_MASK, cost)
    assert perfect < guided_alignment_cost(ATTENTION, ALIGNMENT, SRC_MASK, TRG_MASK, cost)


def test_word_distillation_is_the_divergence_from_the_teacher() -> None:
    teacher, student = torch.tensor([[0.5, 0.25, 0.25], [1.0, 1.0, 1.0]]), torch.tensor([[0.25, 0.5, 0.25], [1.0] * 3])
    cost = word_distillation_cost(student.log() + 2.0, teacher.log() - 1.0)
    assert cost.item() == pytest.approx(0.5 * math.log(2) - 0.25 * math.log(2), rel=1e-5)


def test_word_distillation_at_a_temperature_softens_both_and_is_scaled_by_its_square() -> None:
    # At temperature 2 probabilities are as their square roots: 9 to 1 becomes 3 to 1.
    cost = word_distillation_cost(torch.tensor([[0.1, 0.9]]).log(), torch.tensor([[0.9, 0.1]]).log(), temperature=2.0)
    assert cost.item() == pytest.approx(4 * (0.75 * math.log(3) - 0.25 * math.log(3)), rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_gradient_of_word_distillation_is_the_difference_of_the_softened_probabilities(temperature: float) -> None:
    logits, scores = torch.randn(4, 9, requires_grad=True), torch.randn(4, 9)
    (gradient,) = torch.autograd.grad(word_distillation_cost(logits, scores, temperature), logits)
    wanted = temperature * (torch.softmax(logits / temperature, -1) - torch.softmax(scores / temperature, -1))
    torch.testing.assert_close(gradient, wanted)


def stored(teacher: torch.Tensor, count: int) -> Distributions:
    probabilities, ids = teacher.topk(count, dim=-1)
    return Distributions(ids, probabilities)


def test_stored_distributions_keep_the_rest_as_one_outcome() -> None:
    teacher, student = torch.tensor([[0.1, 0.6, 0.1, 0.2]]), torch.tensor([[0.3, 0.4, 0.1, 0.2]])
    cost = stored_distillation_cost(student.log() + 1.0, stored(teacher, 1))
    assert cost.item() == pytest.approx(0.6 * math.log(0.6 / 0.4) + 0.4 * math.log(0.4 / 0.6), rel=1e-5)
    cost = stored_distillation_cost(student.log() + 1.0, stored(teacher, 2))
    wanted = 0.6 * math.log(0.6 / 0.4) + 0.2 * math.log(0.2 / 0.2) + 0.2 * math.log(0.2 / 0.4)
    assert cost.item() == pytest.approx(wanted, rel=1e-5)


def test_stored_distributions_say_less_than_whole_ones_and_in_the_end_as_much() -> None:
    teacher, logits = torch.randn(5, 12), torch.randn(5, 12)
    costs = [stored_distillation_cost(logits, stored(teacher.softmax(-1), k)).item() for k in (1, 4, 8, 11)]
    assert costs == sorted(costs)
    assert costs[-1] == pytest.approx(word_distillation_cost(logits, teacher).item(), rel=1e-4)


def test_a_student_that_agrees_with_stored_distributions_learns_nothing_from_them() -> None:
    logits = torch.randn(5, 12, requires_grad=True)
    cost = stored_distillation_cost(logits, stored(logits.detach().softmax(-1), 3))
    (gradient,) = torch.autograd.grad(cost, logits)
    assert cost.item() == pytest.approx(0.0, abs=1e-5)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


def test_rounded_probabilities_above_one_together_are_no_harm() -> None:
    logits = torch.randn(1, 4, requires_grad=True)
    cost = stored_distillation_cost(logits, Distributions(torch.tensor([[0, 2]]), torch.tensor([[0.7, 0.3002]])))
    (gradient,) = torch.autograd.grad(cost, logits)
    assert math.isfinite(cost.item()) and gradient.isfinite().all()


def test_cosine_cost() -> None:
    student = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
    teacher = torch.tensor([[1.0, 0.0], [0.0, -1.0], [1.0, 1.0]])
    assert cosine_cost(student, teacher).item() == pytest.approx(0 + 2 + (1 - math.sqrt(0.5)), rel=1e-5)


def test_squares_of_normalised_states() -> None:
    # Normalised, the first is (-1, 1) and (1, -1); the second differs by size and offset alone.
    student, teacher = torch.tensor([[0.0, 2.0], [5.0, 7.0]]), torch.tensor([[6.0, 4.0], [-20.0, 20.0]])
    assert normalised_squares_cost(student, teacher).item() == pytest.approx(4.0, rel=1e-4)
