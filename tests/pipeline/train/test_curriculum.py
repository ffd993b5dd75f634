from collections import Counter

import pytest

from pipeline.common.errors import UserError
from pipeline.train.curriculum import Stage, curriculum, next_corpus, parse_curriculum


def test_one_corpus_is_one_stage() -> None:
    assert curriculum(["distilled"]) == [Stage({"distilled": 1.0})]
    assert curriculum(["original"], "two-stage") == [Stage({"original": 1.0})]


def test_teacher_modes() -> None:
    assert curriculum(["original", "backtranslated"]) == [Stage({"original": 0.7, "backtranslated": 0.3})]
    first, second = curriculum(["original", "backtranslated"], "two-stage")
    assert first == Stage({"original": 0.6, "backtranslated": 0.4}, ("backtranslated", 2))
    assert second == Stage({"original": 1.0})


@pytest.mark.parametrize("corpora", [[], ["original", "distilled"], ["original", "original"]])
def test_other_mixtures_are_refused(corpora: list[str]) -> None:
    with pytest.raises(UserError):
        curriculum(corpora)


def test_mixing_is_exact_at_every_moment() -> None:
    weights = {"original": 0.7, "backtranslated": 0.3}
    taken: Counter[str] = Counter()
    for count in range(1, 1001):
        taken[next_corpus(weights, taken)] += 1
        assert all(abs(taken[name] - weight * count) <= 1 for name, weight in weights.items())


CORPORA = ["original", "backtranslated", "distilled"]


def test_a_curriculum_of_any_corpora() -> None:
    value = [
        {"mix": {"original": 3, "distilled": 1}, "until": "2e of distilled"},
        {"mix": {"backtranslated": 1}, "until": "1 epoch of backtranslated"},
        {"mix": {"original": 0.5, "distilled": 0.5}, "until": "3e of distilled"},
        {"mix": {"original": 1}, "until": None},
    ]
    assert parse_curriculum(value, CORPORA) == [
        Stage({"original": 0.75, "distilled": 0.25}, ("distilled", 2)),
        Stage({"backtranslated": 1.0}, ("backtranslated", 1)),
        Stage({"original": 0.5, "distilled": 0.5}, ("distilled", 3)),
        Stage({"original": 1.0}),
    ]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "not a list of stages such as"),
        ({"mix": {"original": 1}}, "not a list of stages"),
        ([{"until": None}], "stage 1: .* has no mix"),
        ([{"mix": {}}], "stage 1: .* has no mix"),
        ([{"mix": {"original": 1}, "epochs": 2}], "stage 1: epochs: a stage has mix and until only"),
        ([{"mix": {"orginal": 1}}], "stage 1: the corpus orginal is not given, only original, back"),
        ([{"mix": {"original": 0}}], "stage 1: the weight of original is a number above 0, not 0"),
        ([{"mix": {"original": "x"}}], "not 'x'"),
        ([{"mix": {"original": float("nan")}}], "not nan"),
        ([{"mix": {"original": 1}, "until": "2e of original"}], "stage 1: the last stage ends with training"),
        ([{"mix": {"original": 1}}, {"mix": {"distilled": 1}}], "stage 1: no until, so that stage 2 would never begin"),
        (
            [{"mix": {"original": 1}, "until": "2u of original"}, {"mix": {"original": 1}}],
            "not such as `2e of",
        ),
        ([{"mix": {"original": 1}, "until": "0e of original"}, {"mix": {"original": 1}}], "not such as"),
        ([{"mix": {"original": 1}, "until": "1e of distilled"}, {"mix": {"original": 1}}], "which is not in the mix"),
        (
            [
                {"mix": {"original": 1}, "until": "2e of original"},
                {"mix": {"original": 1, "distilled": 1}, "until": "2e of original"},
                {"mix": {"backtranslated": 1}},
            ],
            "stage 2: until 2e of original is over before it begins",
        ),
        ([{"mix": {"original": 1, "distilled": 1}}], "no stage reads backtranslated"),
    ],
)
def test_wrong_curricula_are_refused(value: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_curriculum(value, CORPORA)
