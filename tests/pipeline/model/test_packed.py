"""Training on real positions alone: the costs and derivatives of the plain transformer, to rounding."""

from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES
from tiny_model import tiny_config, tiny_model
from torch import Tensor

from pipeline.model import kernels
from pipeline.model.kernels import Packing
from pipeline.model.packed import PackedTransformer
from pipeline.model.transformer import Transformer
from pipeline.train.loss import token_cross_entropy

NAMES = [name for name in ARCHITECTURES if "ssru" not in name]
LENGTHS = [(7, 9), (12, 3), (1, 12), (12, 1)]


def make_batch(lengths: list[tuple[int, int]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sources, their mask, targets and their mask."""
    rng, sides = torch.Generator().manual_seed(1), []
    for side in (0, 1):
        longest = max(pair[side] for pair in lengths)
        mask = torch.arange(longest) < torch.tensor([pair[side] for pair in lengths])[:, None]
        sides += [torch.randint(2, 290, mask.shape, generator=rng) * mask, mask]
    return sides[0], sides[1], sides[2], sides[3]


def plainly(model: Transformer, batch: tuple[Tensor, ...], weighed: Tensor) -> Tensor:
    src, src_mask, trg, trg_mask = batch
    states, attention = model.decode(trg, model.encode(src, src_mask), src_mask, alignment=True)
    assert attention is not None
    cost = token_cross_entropy(model.logits(states[trg_mask]), trg[trg_mask], 0.1)
    return cost + (attention * weighed * trg_mask[:, :, None]).sum()


def packed(model: Transformer, batch: tuple[Tensor, ...], weighed: Tensor, dtype: torch.dtype) -> Tensor:
    trained, trg, trg_mask = PackedTransformer(model, dtype), batch[2], batch[3]
    states, attention = trained.states(*batch, alignment=True)
    assert attention is not None
    cost = trained.cost(states, trg[trg_mask], 0.1)
    return cost + (attention * weighed * trg_mask[:, :, None]).sum()


def gradients(model: Transformer, cost: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    torch.autograd.backward(cost)
    # A bias of all keys alike changes no softmax: its derivative is rounding alone.
    named = {name: parameter.grad for name, parameter in model.named_parameters() if not name.endswith("_bk")}
    return {name: gradient.clone() for name, gradient in named.items() if gradient is not None}


@pytest.mark.parametrize("lengths", [LENGTHS, [(5, 6)] * 3], ids=["padding", "no padding"])
@pytest.mark.parametrize("name", NAMES)
def test_costs_and_derivatives_are_those_of_the_plain_model(name, lengths):
    model, batch = tiny_model(**ARCHITECTURES[name]), make_batch(lengths)
    weighed = torch.randn(
        len(lengths), batch[2].shape[1], batch[0].shape[1], generator=torch.Generator().manual_seed(2)
    )
    expected, found = plainly(model, batch, weighed), packed(model, batch, weighed, torch.float32)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    wanted, given = gradients(model, expected), gradients(model, found)
    assert wanted.keys() == given.keys()
    for parameter, gradient in wanted.items():
        torch.testing.assert_close(given[parameter], gradient, rtol=1e-3, atol=2e-4, msg=lambda m, p=parameter: p + m)


def test_in_bfloat16_derivatives_are_as_near_to_exact_ones_as_under_autocast():
    model, batch = tiny_model(), make_batch([(9, 9), (8, 9), (9, 7)] * 8)
    weighed = torch.zeros(24, 9, 9)
    exact = gradients(model, plainly(model, batch, weighed))
    with torch.autocast("cpu", torch.bfloat16):
        cost = plainly(model, batch, weighed)
    autocast = gradients(model, cost)
    given = gradients(model, packed(model, batch, weighed, torch.bfloat16))

    def distance(found: dict[str, Tensor]) -> float:
        return sum(float((found[name] - exact[name]).norm() / exact[name].norm()) for name in exact) / len(exact)

    assert distance(autocast) > 1e-4, "autocast did nothing"
    assert distance(given) < 1.3 * distance(autocast)


def test_a_piece_that_seems_impossible_costs_much_but_not_infinitely():
    states, weight = torch.ones(3, 4, requires_grad=True), torch.zeros(8, 4)
    weight[2] = 100.0
    targets = torch.tensor([2, 3, 2])
    cost = kernels.output_cost(states, weight, None, targets, 0.0, torch.float32)
    assert 80 < cost.item() < 500
    torch.autograd.backward(cost)
    torch.testing.assert_close(states.grad, torch.tensor([[0.0] * 4, [100.0] * 4, [0.0] * 4]))


def test_frozen_parameters_get_no_derivatives():
    model, batch = tiny_model(), make_batch(LENGTHS)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("decoder"))
    cost = packed(model, batch, torch.zeros(4, 12, 12), torch.float32)
    assert {name.split("_")[0] for name in gradients(model, cost)} == {"decoder"}


def test_longer_sentences_than_ever_before_find_their_positions():
    model = tiny_model()
    batch = make_batch([(1030, 3)])
    assert torch.isfinite(packed(model, batch, torch.zeros(1, 3, 1030), torch.float32))


@pytest.mark.parametrize(
    "changes", [{"transformer_decoder_autoreg": "rnn", "dec_cell": "ssru"}, {"transformer_dropout_attention": 0.1}]
)
def test_what_is_computed_otherwise_is_refused(changes: dict[str, Any]):
    assert PackedTransformer.can_train(tiny_config())
    assert not PackedTransformer.can_train(tiny_config(**changes))


def test_dropout_acts_in_training_only_and_differs_each_time():
    model, batch = tiny_model(transformer_dropout=0.2), make_batch(LENGTHS)
    weighed = torch.zeros(4, 12, 12)
    exact = packed(model, batch, weighed, torch.float32)
    assert exact.item() == pytest.approx(plainly(model, batch, weighed).item(), rel=1e-5)
    model.train()
    torch.manual_seed(1)
    first, second = (packed(model, batch, weighed, torch.float32).item() for _ in range(2))
    torch.manual_seed(1)
    assert first == packed(model, batch, weighed, torch.float32).item() != second


def test_dropout_and_residual_in_one_keep_the_mean_and_their_derivatives():
    torch.manual_seed(1)
    x = torch.ones(997, 333, requires_grad=True)
    block_input = torch.full((997, 333), 2.0, requires_grad=True)
    y = kernels.dropout_add(x, block_input, 0.3)
    kept = y != 2
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.003)
    assert y.mean().item() == pytest.approx(3, abs=0.01)
    y.sum().backward()
    assert torch.equal(block_input.grad, torch.ones_like(y))
    torch.testing.assert_close(x.grad, (y - 2).detach())


def test_packing_and_padding_are_inverse():
    mask = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
    packing = Packing.of(mask)
    ids = torch.arange(9).view(3, 3)
    assert packing.pack(ids).tolist() == [0, 1, 3, 6, 7, 8]
    assert packing.columns.tolist() == [0, 1, 0, 0, 1, 2]
    x = torch.arange(1.0, 7.0)[:, None]
    assert packing.zero_padded(x).view(3, 3).tolist() == [[1, 2, 0], [3, 0, 0], [4, 5, 6]]
    assert torch.equal(packing.padded(x).view(3, 3)[mask], x.view(-1))
    assert Packing.of(mask[:, :1]).real is None
