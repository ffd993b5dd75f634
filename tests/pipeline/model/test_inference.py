"""Decoding piece by piece gives what decoding whole targets gives."""

import pytest
import torch
from architectures import ARCHITECTURES
from tiny_model import padded, tiny_model

from pipeline.model import inference
from pipeline.model.inference import InferenceModel, Projection

SOURCES = [[5, 17, 4, 250, 0], [9, 0], [33, 7, 8, 0]]
TARGETS = [[8, 3, 0, 0, 0], [100, 4, 77, 6, 0], [2, 0, 9, 9, 9]]
LOGITS = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def hypotheses(model, memory, src_mask, prefixes):
    """States that predict what follows each of the prefixes [B, K, T], by decoding them whole."""
    rows = []
    for sentence, mask, of_sentence in zip(memory, src_mask, prefixes, strict=True):
        targets = torch.tensor([[*prefix, 0] for prefix in of_sentence])
        several = [part.expand(len(targets), *part.shape) for part in (sentence, mask)]
        rows.append(model.decode(targets, *several)[0][:, -1])
    return torch.stack(rows)


@pytest.mark.parametrize("changes", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_steps_equal_whole_targets(changes):
    model = tiny_model(**changes)
    src, src_mask = padded(SOURCES)
    trg = torch.tensor(TARGETS)
    memory = model.encode(src, src_mask)
    expected = model.logits(model.decode(trg, memory, src_mask)[0])

    incremental = InferenceModel(model)
    found = incremental.encode(src, src_mask)
    torch.testing.assert_close(found[src_mask], memory[src_mask], **LOGITS)
    assert (found[~src_mask] == 0).all()
    state = incremental.start(memory, src_mask)
    steps = [incremental.step(None, state)]
    steps += [incremental.step(trg[:, place : place + 1], state) for place in range(trg.shape[1] - 1)]
    found = incremental.output_layer(())(torch.cat(steps, dim=1))
    torch.testing.assert_close(found[..., : expected.shape[-1]], expected, **LOGITS)


@pytest.mark.parametrize("changes", [ARCHITECTURES["usual"], ARCHITECTURES["ssru"]], ids=["usual", "ssru"])
def test_hypotheses_of_a_sentence_have_pasts_of_their_own(changes, monkeypatch):
    monkeypatch.setattr(inference, "_FIRST_ROOM", 3)
    model = tiny_model(**changes)
    incremental = InferenceModel(model)
    src, src_mask = padded(SOURCES)
    memory = model.encode(src, src_mask)
    state = incremental.start(memory, src_mask)
    incremental.step(None, state)
    state.select(None, torch.tensor([[0, 0], [0, 0], [0, 0]]))
    states = incremental.step(torch.tensor([[4, 5], [6, 7], [8, 9]]), state)
    expected = hypotheses(model, memory, src_mask, [[[4], [5]], [[6], [7]], [[8], [9]]])
    torch.testing.assert_close(states, expected, **LOGITS)
    # The second hypothesis of the first sentence displaces the first, those of the others change places.
    state.select(None, torch.tensor([[1, 1], [1, 0], [1, 0]]))
    incremental.step(torch.tensor([[10, 11], [12, 13], [14, 15]]), state)
    # The second sentence leaves, and one with three hypotheses goes on.
    state.select(torch.tensor([0, 2]), torch.tensor([[1, 0, 1], [0, 1, 1]]))
    states = incremental.step(torch.tensor([[20, 21, 22], [23, 24, 25]]), state)
    lines = [[[5, 11, 20], [5, 10, 21], [5, 11, 22]], [[9, 14, 23], [8, 15, 24], [8, 15, 25]]]
    torch.testing.assert_close(states, hypotheses(model, memory[[0, 2]], src_mask[[0, 2]], lines), **LOGITS)


@pytest.mark.parametrize("lengths", [[50, 9, 41], [45, 45], [7, 7]])
def test_sources_of_any_lengths(lengths):
    model = tiny_model()
    src, src_mask = padded([torch.randint(2, 400, (length,)).tolist() for length in lengths])
    found = InferenceModel(model).encode(src, src_mask)
    torch.testing.assert_close(found[src_mask], model.encode(src, src_mask)[src_mask], **LOGITS)


def test_the_output_layer_can_be_of_some_pieces_only():
    for model in (tiny_model(), tiny_model(**ARCHITECTURES["untied"]), tiny_model(**ARCHITECTURES["two-vocabularies"])):
        states = torch.randn(2, 3, 32)
        logits = model.logits(states)
        ids = torch.tensor([0, 7, 8, 200])
        found = InferenceModel(model).output_layer((7,), ids)(states)
        assert found.shape == (2, 3, inference.VOCAB_BLOCK)
        torch.testing.assert_close(found[..., [0, 2, 3]], logits[..., [0, 8, 200]], **LOGITS)
        assert (found[..., 1] == -torch.inf).all() and (found[..., 4:] == -torch.inf).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_projection_multiplies_in_the_type_of_its_matrix(dtype):
    weight, bias, x = torch.randn(96, 64), torch.randn(96), torch.randn(5, 2, 64)
    found = Projection(weight.to(dtype), bias)(x)
    assert found.dtype == dtype
    tolerance = {"atol": 1e-4, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.2, "rtol": 0.02}
    torch.testing.assert_close(found.float(), x @ weight.t() + bias, **tolerance)
    other = Projection(weight.to(dtype), bias).with_bias(bias + 1)(x)
    torch.testing.assert_close(other.float(), found.float() + 1, **tolerance)


def test_unpacked_matrices_give_the_same(monkeypatch):
    weight, bias, x = torch.randn(96, 64), torch.randn(96), torch.randn(5, 64)
    packed = Projection(weight, bias)(x)
    monkeypatch.setattr(inference, "_can_pack", lambda weight: False)
    torch.testing.assert_close(Projection(weight, bias)(x), packed, atol=1e-4, rtol=1e-5)


def test_half_precision_stays_near():
    model = tiny_model()
    src, src_mask = padded(SOURCES)
    expected = model.logits(model.decode(torch.tensor(TARGETS)[:, :1], model.encode(src, src_mask), src_mask)[0])
    half = InferenceModel(model, torch.bfloat16)
    state = half.start(half.encode(src, src_mask), src_mask)
    found = half.output_layer(())(half.step(None, state)).float()
    assert 0 < (found[..., :400] - expected).abs().max() < 0.2
