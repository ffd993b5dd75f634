"""n-best lists, and the choice among hypotheses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import CHRF

from pipeline.common.errors import UserError
from pipeline.common.files import read_lines, write_lines
from pipeline.translate import extract_best
from pipeline.translate.chrf import sentence_chrf
from pipeline.translate.nbest import format_hypothesis, parse_hypothesis, read_nbest

TEXT = st.text(st.sampled_from("ab c|äß日\u2028\U0001f600"), max_size=25)


@given(st.integers(0, 10**9), TEXT, st.floats(-100, 0))
def test_a_hypothesis_survives_its_line(number, text, score):
    found = parse_hypothesis(format_hypothesis(number, text, score))
    assert found == (number, text, pytest.approx(score, abs=1e-6))


def test_a_hypothesis_may_hold_the_separator():
    assert parse_hypothesis("3 ||| a ||| b ||| -0.5") == (3, "a ||| b", -0.5)


@pytest.mark.parametrize("line", ["", "3 ||| a", "x ||| a ||| -1", "3 ||| a ||| low", "a b c"])
def test_other_lines_are_no_hypotheses(line):
    with pytest.raises(ValueError):
        parse_hypothesis(line)


@settings(max_examples=150)
@given(st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=4)), min_size=1, max_size=5))
def test_scores_are_sacrebleus(rows):
    references, hypotheses = [row[0] for row in rows], [row[1] for row in rows]
    found = sentence_chrf(references, hypotheses)
    metric = CHRF()
    for place, (reference, candidates) in enumerate(rows):
        expected = [metric.sentence_score(candidate, [reference]).score for candidate in candidates]
        assert found[place, : len(candidates)].tolist() == expected
        assert (found[place, len(candidates) :] == -1).all()
        assert int(np.argmax(found[place])) == expected.index(max(expected))


def write(path, lines):
    with write_lines(path) as output:
        for line in lines:
            output.write(line)
    return path


def test_the_nearest_hypothesis_is_kept_and_the_better_ranked_of_equals(tmp_path, monkeypatch):
    monkeypatch.setattr(extract_best, "BLOCK", 2)
    lists = [["a cat", "the cat sat", "a dog"], ["x y", "xy"], ["", "nothing"], ["one"]]
    references = ["the cat sat.", "x y", "something", ""]
    lines = [format_hypothesis(n, text, -1.0) for n, texts in enumerate(lists) for text in texts]
    nbest, refs = write(tmp_path / "n.zst", lines), write(tmp_path / "r.zst", references)
    assert list(read_nbest(nbest)) == lists
    extract_best.main(["--nbest", str(nbest), "--references", str(refs), "--output", str(tmp_path / "best.zst")])
    # chrF leaves spaces out, so "x y" and "xy" are equals.
    assert list(read_lines(tmp_path / "best.zst")) == ["the cat sat", "x y", "nothing", "one"]


@pytest.mark.parametrize(
    ("numbers", "references", "message"),
    [
        ([0, 0, 1], 3, "hypotheses of 2 sentences only"),
        ([0, 1, 2], 2, "more sentences than the 2"),
        ([0, 2], 2, "sentence 1 is missing"),
    ],
)
def test_lists_that_do_not_fit_the_references(tmp_path, numbers, references, message):
    nbest = write(tmp_path / "n.zst", [format_hypothesis(number, "a", -1) for number in numbers])
    refs = write(tmp_path / "r.zst", ["a"] * references)
    with pytest.raises(UserError, match=message):
        extract_best.extract_best(nbest, refs, tmp_path / "best.zst")
    assert not (tmp_path / "best.zst").exists()


def test_a_line_that_is_none_is_named(tmp_path):
    nbest = write(tmp_path / "n.zst", [format_hypothesis(0, "a", -1), "surprise"])
    with pytest.raises(UserError, match=r"n\.zst:2"):
        list(read_nbest(nbest))
