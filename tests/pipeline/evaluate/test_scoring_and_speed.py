"""Scores against sacreBLEU itself, and the arithmetic of speed."""

from collections.abc import Sequence

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluate import speed
from pipeline.evaluate.scoring import bleu, bleu_tokenizer, chrf, count_words, ter
from pipeline.evaluate.speed import (
    latency_sample,
    latency_seconds,
    length_batches,
    measure_speed,
    percentile,
    words_per_second,
)

HYPOTHESES = ["Das Haus ist sehr klein.", "Sie liest ein Buch über Häuser, oder?", "(leer)"]
REFERENCES = ["Das Haus ist klein.", "Sie liest ein langes Buch über Häuser.", "Nichts da."]


def test_scores_are_sacrebleus() -> None:
    assert chrf(HYPOTHESES, REFERENCES)["score"] == round(sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score, 4)
    assert bleu(HYPOTHESES, REFERENCES, "de")["score"] == round(
        sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score, 4
    )
    edits = ter(HYPOTHESES, REFERENCES, "de")
    assert edits and edits["score"] == round(sacrebleu.corpus_ter(HYPOTHESES, [REFERENCES]).score, 4)
    assert chrf(REFERENCES, REFERENCES)["score"] == bleu(REFERENCES, REFERENCES, "de")["score"] == 100


@pytest.mark.parametrize(("language", "tokenizer"), [("de", "13a"), ("zh", "zh"), ("zh_Hant", "zh"), ("ja", "char")])
def test_bleu_splits_words_as_suits_the_language(language: str, tokenizer: str) -> None:
    assert bleu_tokenizer(language) == tokenizer
    assert f"tok:{tokenizer}|" in bleu(["我 有书"], ["我有一本书"], language)["signature"]


def test_ter_splits_what_tercom_can_split() -> None:
    chinese = ter(["我有书"], ["我有一书"], "zh")
    assert chinese and chinese["score"] == 25  # one of four characters is missing
    assert "asian:yes" in chinese["signature"]
    assert ter(["ฉันมีหนังสือ"], ["ฉันมีหนังสือ"], "th") is None


def test_words_are_counted_between_spaces_or_as_characters() -> None:
    assert count_words(["The house, it's small.", " two  words "], "en") == 6
    assert count_words(["我有一本书。"], "zh") == 6


@given(st.lists(st.text(max_size=20), max_size=50), st.integers(1, 20))
def test_batches_hold_every_sentence_once_by_falling_length(sentences: list[str], size: int) -> None:
    batches = length_batches(sentences, size)
    order = [index for batch in batches for index in batch]
    assert sorted(order) == list(range(len(sentences)))
    assert [len(sentences[index]) for index in order] == sorted(map(len, sentences), reverse=True)
    assert all(len(batch) == size for batch in batches[:-1])


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 100))
def test_percentiles_lie_between_the_values(values: list[float], percent: float) -> None:
    assert min(values) <= percentile(values, percent) <= max(values)
    assert percentile(values, 0) == min(values)
    assert percentile(values, 100) == max(values)


class Clock:
    """Stands in for the time: it advances by what translations are said to take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(speed.time, "perf_counter", lambda: self.now)

    def translate(self, batch: Sequence[str]) -> None:
        self.now += 0.01 * len(batch)


def test_throughput_is_words_by_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    # sentences of three words on average, at 10 ms each
    sentences = ["one two three", "a b", "a b c d"] * 16
    assert words_per_second(clock.translate, sentences, "en", seconds=3) == pytest.approx(300, rel=0.05)
    assert 3 <= clock.now < 3.2


def test_latency_is_of_single_sentences_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert latency_seconds(clock.translate, ["a"] * 100, seconds=5) == pytest.approx([0.01] * 100)
    assert len(latency_seconds(clock.translate, ["a"] * 1000, seconds=0.5)) in (50, 51)
    sample = latency_sample(["", *(str(number) for number in range(1000)), " "])
    assert len(set(sample)) == speed.LATENCY_SENTENCES and "" not in sample and " " not in sample


def test_a_measurement_begins_with_a_warm_up_of_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = Clock(monkeypatch), []

    def translate(batch: Sequence[str]) -> None:
        calls.append(list(batch))
        # what comes first is slow, as memory is new and caches are cold
        clock.now += 100.0 if len(calls) == 1 else 0.01 * len(batch)

    sentences = ["one two"] * 20 + ["one two three four"] * 16
    measured = measure_speed(translate, sentences, "en", seconds=4)
    assert calls[0] == ["one two three four"] * 16
    assert [len(batch) for batch in calls[1:37]] == [1] * 36
    words = (20 * 2 + 16 * 4) / 36
    assert measured["words-per-second"] == pytest.approx(100 * words, rel=0.05)
    assert measured["words-per-second-single"] == pytest.approx(100 * words, rel=0.001)
    latency = measured["latency-ms"]
    assert latency["sentences"] == 36 and measured["threads"] == 1
    assert latency["median"] == latency["p50"] == latency["p90"] == latency["p99"] == pytest.approx(10)
