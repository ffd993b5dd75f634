import math

import pytest
import torch

from pipeline.train.batches import Alignment
from pipeline.train.loss import guided_alignment_cost, token_cross_entropy


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
