"""Beam search."""

import copy
import math

import pytest
import torch
from tiny_model import padded, tiny_vocab, toy_pairs, trained_model

from pipeline.common.errors import UserError
from pipeline.model.search import beam_search, longest_translation

SOURCES = tiny_vocab().encode([source for source, _ in toy_pairs(4, seed=5)])


def log_prob(models, source, target):
    """Mean over models of a target's log-probability; unknown pieces and empty targets are ruled out as in search."""
    votes = []
    for model in models:
        with torch.no_grad():
            logits = model(*padded([source]), torch.tensor([target]))[0][0]
        logits[:, 1] = -math.inf
        logits[0, 0] = -math.inf
        votes.append(logits.log_softmax(-1))
    return torch.stack(votes).mean(0)[range(len(target)), target].sum().item()


@pytest.mark.parametrize(("seeds", "beam_size", "normalize"), [((1,), 1, 1.0), ((1,), 4, 0.6), ((1, 2), 4, 1.0)])
def test_scores_are_length_normalised_log_probabilities(seeds, beam_size, normalize):
    models = [trained_model(seed) for seed in seeds]
    found = beam_search(models, *padded(SOURCES), beam_size, normalize, n_best=beam_size)
    for source, hypotheses in zip(SOURCES, found, strict=True):
        scores = [hypothesis.score for hypothesis in hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert len({tuple(hypothesis.ids) for hypothesis in hypotheses}) == len(hypotheses) == beam_size
        for hypothesis in hypotheses:
            assert hypothesis.ids and 0 not in hypothesis.ids and 1 not in hypothesis.ids
            was_cut = len(hypothesis.ids) == longest_translation(len(source))
            target = hypothesis.ids if was_cut else [*hypothesis.ids, 0]
            expected = log_prob(models, source, target) / len(target) ** normalize
            assert hypothesis.score == pytest.approx(expected, abs=1e-5)


def test_without_normalisation_the_best_finished_one_ends_the_search():
    model = trained_model()
    for found, wider in zip(
        beam_search([model], *padded(SOURCES), 4, 0.0),
        beam_search([model], *padded(SOURCES), 4, 0.0, n_best=4),
        strict=True,
    ):
        assert found[0] == wider[0]


def test_one_hypothesis_is_greedy():
    model = trained_model()
    with torch.no_grad():
        ids = beam_search([model], *padded(SOURCES[:1]), 1)[0][0].ids
        src, mask = padded(SOURCES[:1])
        logits = model(src, mask, torch.tensor([ids]))[0][0]
        logits[:, 1] = -math.inf
        logits[0, 0] = -math.inf
    assert logits.argmax(-1).tolist() == ids


def test_a_translation_does_not_depend_on_its_batch():
    model = trained_model()
    together = beam_search([model], *padded(SOURCES), 3, n_best=3)
    for source, found in zip(SOURCES, together, strict=True):
        alone = beam_search([model], *padded([source]), 3, n_best=3)[0]
        assert [hypothesis.ids for hypothesis in alone] == [hypothesis.ids for hypothesis in found]


def test_an_ensemble_of_equals_is_its_member_and_of_different_ones_is_not():
    one, other = trained_model(1), trained_model(2)
    batch = padded(tiny_vocab().encode([source for source, _ in toy_pairs(10, seed=5)]))
    single = beam_search([one], *batch, 4)
    assert [found[0].ids for found in beam_search([one, one], *batch, 4)] == [found[0].ids for found in single]
    assert [found[0].ids for found in beam_search([one, other], *batch, 4)] != [found[0].ids for found in single]


def test_translations_are_cut():
    model = copy.deepcopy(trained_model())
    with torch.no_grad():
        model.decoder_ff_logit_out_b[0, 0] = -100.0  # never ends
    found = beam_search([model], *padded(SOURCES), 2, max_length_factor=1.5)
    assert [len(hypotheses[0].ids) for hypotheses in found] == [longest_translation(len(s), 1.5) for s in SOURCES]
    assert longest_translation(4) == 18
    assert longest_translation(10_000) == 1000


def test_unknown_pieces_only_when_allowed():
    model = copy.deepcopy(trained_model())
    with torch.no_grad():
        model.decoder_ff_logit_out_b[0, 1] = 50.0
    assert 1 not in beam_search([model], *padded(SOURCES), 2)[0][0].ids
    assert 1 in beam_search([model], *padded(SOURCES), 2, allow_unk=True)[0][0].ids


@pytest.mark.parametrize("arguments", [{"beam_size": 201}, {"beam_size": 2, "n_best": 3}, {"beam_size": 0}])
def test_impossible_beams(arguments):
    with pytest.raises(UserError, match="beam"):
        beam_search([trained_model()], *padded(SOURCES), **arguments)


def test_different_sentences_get_different_translations_of_different_lengths():
    # Guards the tests here against a model that says the same whatever it reads, or never ends.
    batch = padded(tiny_vocab().encode([source for source, _ in toy_pairs(40, seed=6)]))
    translations = {tuple(found[0].ids) for found in beam_search([trained_model()], *batch, 4)}
    assert len(translations) > 30
    assert len({len(ids) for ids in translations}) > 4
    assert sum(len(ids) for ids in translations) < 20 * len(translations)
