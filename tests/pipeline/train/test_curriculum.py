from collections import Counter

import pytest

from pipeline.common.errors import UserError
from pipeline.train.curriculum import Stage, curriculum, next_corpus


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
