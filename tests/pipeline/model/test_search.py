"""Searching: the beam against a plain one, and greedy search, prefixes, shortlists and samples."""

import copy
import math
from collections import Counter

import pytest
import torch
from tiny_model import padded, tiny_vocab, toy_pairs, trained_model

from pipeline.common.errors import UserError
from pipeline.model.decoding import Sampling
from pipeline.model.inference import InferenceModel
from pipeline.model.search import beam_search, best_pieces, longest_translation

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


SSRU = {"transformer_decoder_autoreg": "rnn", "dec_cell": "ssru"}


def plain_search(models, source, beam_size, normalize=1.0, factor=2.0, prefix=(), candidates=None):
    """The rules, one sentence and one hypothesis at a time, every prefix decoded anew: (ids, score), best first."""
    beam, finished, limit = [((), 0.0)], [], longest_translation(len(source), factor)
    for length in range(1, limit + 1):
        options = []
        for ids, total in beam:
            if length <= len(prefix):
                options.append(((*ids, prefix[length - 1]), total))
                break
            for piece, value in enumerate(next_log_probs(models, source, ids, candidates).tolist()):
                options.append(((*ids, piece), total + value))
        options.sort(key=lambda option: -option[1])
        options = [option for option in options[: 2 * beam_size] if option[1] > -math.inf]
        beam = []
        for rank, (ids, total) in enumerate(options):
            ends = ids[-1] == 0
            if rank < beam_size and (ends or length == limit):
                finished.append((list(ids[:-1] if ends else ids), total / length**normalize))
            if not ends and len(beam) < beam_size:
                beam.append((ids, total))
        if len(finished) >= beam_size:
            break
    return sorted(finished, key=lambda found: -found[1])


def next_log_probs(models, source, ids, candidates):
    votes = []
    for model in models:
        with torch.no_grad():
            logits = model(*padded([source]), torch.tensor([[*ids, 0]]))[0][0, -1]
        logits[1] = -math.inf
        if not ids:
            logits[0] = -math.inf
        if candidates is not None:
            keep = torch.zeros(len(logits), dtype=torch.bool)
            keep[candidates] = True
            logits[~keep] = -math.inf
        votes.append(logits.log_softmax(-1))
    return torch.stack(votes).mean(0)


def assert_found(found, expected):
    assert [hypothesis.ids for hypothesis in found] == [ids for ids, _ in expected[: len(found)]]
    scores = [score for _, score in expected[: len(found)]]
    assert [hypothesis.score for hypothesis in found] == pytest.approx(scores, abs=1e-5)


SEARCHES = {
    "greedy": ([{}], {"beam_size": 1}),
    "beam": ([{}], {"beam_size": 3}),
    "wide": ([{}], {"beam_size": 8, "normalize": 0.5}),
    "recurrent": ([SSRU], {"beam_size": 3}),
    "recurrent-greedy": ([SSRU], {"beam_size": 1}),
    "mixed-ensemble": ([SSRU, {}], {"beam_size": 3}),
    "mixed-ensemble-greedy": ([SSRU, {}], {"beam_size": 1}),
    "cut": ([{}], {"beam_size": 3, "factor": 0.01}),
}


@pytest.mark.parametrize(("members", "options"), SEARCHES.values(), ids=SEARCHES)
def test_a_batch_gives_what_the_rules_give_sentence_by_sentence(members, options):
    models = [trained_model(**changes) for changes in members]
    renamed = {"max_length_factor" if name == "factor" else name: value for name, value in options.items()}
    found = beam_search(models, *padded(SOURCES), n_best=options["beam_size"], **renamed)
    for source, hypotheses in zip(SOURCES, found, strict=True):
        assert hypotheses
        assert_found(hypotheses, plain_search(models, source, **options))


@pytest.mark.parametrize("beam_size", [1, 3])
@pytest.mark.parametrize("changes", [{}, SSRU], ids=["self-attention", "ssru"])
def test_translations_begin_with_their_prefixes(beam_size, changes):
    model = trained_model(**changes)
    prefixes = [[7, 1, 90], [], [300], [40, 41, 42, 43, 44, 45]]
    found = beam_search([model], *padded(SOURCES), beam_size, n_best=beam_size, prefixes=prefixes)
    for source, prefix, hypotheses in zip(SOURCES, prefixes, found, strict=True):
        assert all(hypothesis.ids[: len(prefix)] == prefix for hypothesis in hypotheses)
        assert_found(hypotheses, plain_search([model], source, beam_size, prefix=prefix))
    unforced = beam_search([model], *padded(SOURCES), beam_size, n_best=beam_size)
    assert [h.ids for h in found[1]] == [h.ids for h in unforced[1]]


def test_a_prefix_longer_than_the_longest_translation_is_cut():
    found = beam_search([trained_model()], *padded([[5, 0]]), 2, prefixes=[[9] * 30])[0]
    assert [hypothesis.ids for hypothesis in found] == [[9] * longest_translation(2)]


@pytest.mark.parametrize("beam_size", [1, 3])
@pytest.mark.parametrize("members", [[{}], [SSRU, {}]], ids=["one", "ensemble"])
def test_a_shortlist_is_a_softmax_over_its_pieces(beam_size, members):
    models = [trained_model(**changes) for changes in members]
    free = beam_search(models, *padded(SOURCES), beam_size)
    # Without some of the pieces that would have been chosen.
    likely = sorted({piece for found in free for piece in found[0].ids})
    candidates = torch.tensor([0, 1, *likely[::2], *range(300, 340), 7, 7])
    found = beam_search(models, *padded(SOURCES), beam_size, n_best=beam_size, candidates=candidates)
    assert [f[0].ids for f in found] != [f[0].ids for f in free]
    for source, hypotheses in zip(SOURCES, found, strict=True):
        assert {piece for hypothesis in hypotheses for piece in hypothesis.ids} <= set(candidates.tolist())
        assert_found(hypotheses, plain_search(models, source, beam_size, candidates=candidates))
    everything = beam_search(models, *padded(SOURCES), beam_size, candidates=torch.arange(400).flip(0))
    assert [f[0].ids for f in everything] == [f[0].ids for f in free]


def test_samples_are_as_frequent_as_they_are_likely():
    model = copy.deepcopy(trained_model())
    with torch.no_grad():
        model.decoder_ff_logit_out_b[0, 0] += 2  # or nothing ends within two pieces
    source, count = SOURCES[0], 4000
    batch = padded([source])
    for sampling in (Sampling(seed=3), Sampling(top_k=5, temperature=1.5, seed=3)):
        found = beam_search([model], *batch, 1, n_best=count, sampling=sampling, max_length_factor=0.01, max_length=1)[
            0
        ]
        logits = next_log_probs([model], source, (), None) / sampling.temperature
        if sampling.top_k:
            logits[logits < logits.topk(sampling.top_k).values[-1]] = -math.inf
        expected = logits.softmax(-1)
        frequencies = Counter(hypothesis.ids[0] for hypothesis in found)
        assert frequencies.total() == count
        assert all(expected[piece] > 0 for piece in frequencies)
        for piece in expected.topk(5).indices.tolist():
            # Four standard deviations of a binomial distribution.
            p = expected[piece].item()
            assert abs(frequencies[piece] / count - p) < 4 * math.sqrt(p * (1 - p) / count)


def test_samples_are_independent_repeatable_and_scored_by_the_model():
    models = [trained_model(), trained_model(**SSRU)]

    def sample(seed):
        return beam_search(models, *padded(SOURCES), 1, n_best=6, sampling=Sampling(20, 1.0, seed))

    found = sample(1)
    assert found == sample(1) != sample(2)
    for source, hypotheses in zip(SOURCES, found, strict=True):
        assert len({tuple(hypothesis.ids) for hypothesis in hypotheses}) > 3
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)
        for hypothesis in hypotheses:
            was_cut = len(hypothesis.ids) == longest_translation(len(source))
            target = hypothesis.ids if was_cut else [*hypothesis.ids, 0]
            assert hypothesis.score == pytest.approx(log_prob(models, source, target) / len(target), abs=1e-5)


def test_one_candidate_is_greedy_search():
    greedy = beam_search([trained_model()], *padded(SOURCES), 1)
    sampled = beam_search([trained_model()], *padded(SOURCES), 1, n_best=2, sampling=Sampling(top_k=1))
    for one, two in zip(greedy, sampled, strict=True):
        assert one[0].ids == two[0].ids == two[1].ids


@pytest.mark.parametrize("count", [1, 2, 7, 12])
def test_the_best_pieces_are_those_of_a_plain_topk(count):
    torch.manual_seed(count)
    for width in (64, 640, 4096):
        log_probs = torch.randn(3, 2, width)
        log_probs[0, 0, : width - 3] = -math.inf
        scores, columns = best_pieces(log_probs, count)
        assert torch.equal(scores, log_probs.topk(count).values)
        assert torch.equal(log_probs.gather(-1, columns), scores)


def test_a_model_laid_out_once_translates_as_it_does_laid_out_anew():
    model = trained_model()
    ready = InferenceModel(model)
    for sources in (SOURCES, SOURCES[:1]):
        assert beam_search([ready], *padded(sources), 3) == beam_search([model], *padded(sources), 3)


def test_autocast_decides_the_type_of_the_products():
    model, exact = trained_model(), beam_search([trained_model()], *padded(SOURCES), 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = beam_search([model], *padded(SOURCES), 1)
    assert exact != rounded
    for one, other in zip(exact, rounded, strict=True):
        assert one[0].score == pytest.approx(other[0].score, abs=0.2)


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prefixes": [[3]]}, "1 prefixes for 4 sentences"),
        ({"prefixes": [[3], [4, 0], [], []]}, r"prefix \[4, 0\] must hold ids from 1 to 399"),
        ({"prefixes": [[3], [400], [], []]}, "prefix"),
        ({"candidates": torch.tensor([4, 5, 6, 7])}, "end of sentence"),
        ({"candidates": torch.tensor([0, 5, 6, 400])}, "from 0 to 399"),
        ({"candidates": torch.tensor([], dtype=torch.long)}, "end of sentence"),
        ({"candidates": torch.tensor([0, 5, 6])}, "vocabulary of 3 pieces"),
        ({"sampling": Sampling()}, "beam size 1"),
    ],
)
def test_impossible_searches(arguments, message):
    with pytest.raises(UserError, match=message):
        beam_search([trained_model()], *padded(SOURCES), 2, **arguments)
    with pytest.raises(UserError, match="temperature"):
        Sampling(temperature=0)


def test_different_sentences_get_different_translations_of_different_lengths():
    # Guards the tests here against a model that says the same whatever it reads, or never ends.
    batch = padded(tiny_vocab().encode([source for source, _ in toy_pairs(40, seed=6)]))
    translations = {tuple(found[0].ids) for found in beam_search([trained_model()], *batch, 4)}
    assert len(translations) > 30
    assert len({len(ids) for ids in translations}) > 4
    assert sum(len(ids) for ids in translations) < 20 * len(translations)
