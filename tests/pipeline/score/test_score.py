"""Scoring and filtering by score."""

import json
import logging
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import padded, tiny_vocab, toy_pairs, trained_files, trained_model

from pipeline.common.errors import UserError
from pipeline.common.files import read_lines, write_lines
from pipeline.score import filter as score_filter
from pipeline.score import score

PAIRS = toy_pairs(50, seed=4)


@pytest.fixture(autouse=True)
def one_processor(monkeypatch):
    monkeypatch.setenv("LIMBECK_CPUS", "1")


def write(path, lines):
    with write_lines(path) as output:
        for line in lines:
            output.write(line)
    return path


def run_score(tmp_path, pairs, *flags):
    model, vocab = trained_files()
    sides = [write(tmp_path / f"{side}.zst", [pair[side] for pair in pairs]) for side in (0, 1)]
    files = ["--corpus-src", str(sides[0]), "--corpus-trg", str(sides[1]), "--output", str(tmp_path / "scores.zst")]
    score.main(["--model", str(model), "--src-vocab", str(vocab), "--trg-vocab", str(vocab), *files, *flags])
    return [float(line) for line in read_lines(tmp_path / "scores.zst")]


def expected(pairs):
    vocab = tiny_vocab()
    src, src_mask = padded(vocab.encode([source for source, _ in pairs]))
    trg, trg_mask = padded(vocab.encode([target for _, target in pairs]))
    with torch.no_grad():
        log_probs = trained_model()(src, src_mask, trg)[0].log_softmax(-1).gather(2, trg.unsqueeze(-1)).squeeze(-1)
    return ((log_probs * trg_mask).sum(1) / trg_mask.sum(1)).tolist()


def test_scores_are_mean_log_probabilities_in_the_corpus_order(tmp_path, monkeypatch):
    monkeypatch.setattr(score, "BLOCK", 20)
    found = run_score(tmp_path, PAIRS)
    assert found == pytest.approx(expected(PAIRS), abs=5e-5)
    swapped = [(source, PAIRS[place - 1][1]) for place, (source, _) in enumerate(PAIRS)]
    assert sum(found) > sum(run_score(tmp_path, swapped))


def test_pairs_with_an_empty_side_score_worst(tmp_path):
    found = run_score(tmp_path, [("", "a"), PAIRS[0], ("a", " "), ("", "")])
    assert found == [-math.inf, pytest.approx(expected(PAIRS[:1])[0], abs=5e-5), -math.inf, -math.inf]


def test_a_prefix_stands_before_every_source(tmp_path):
    found = run_score(tmp_path, [*PAIRS[:5], ("", "a")], "--source-prefix", "tako")
    prefixed = expected([(f"tako {source}", target) for source, target in PAIRS[:5]])
    assert found[:5] == pytest.approx(prefixed, abs=5e-5) and found[5:] == [-math.inf]
    assert found[:5] != pytest.approx(expected(PAIRS[:5]), abs=5e-5)
    with pytest.raises(UserError, match="has no tag >>deu<<"):
        run_score(tmp_path, PAIRS, "--source-prefix", ">>deu<<")


def test_long_pairs_are_cut_and_counted(tmp_path, caplog):
    long = " ".join(source for source, _ in PAIRS)
    with caplog.at_level(logging.WARNING):
        found = run_score(tmp_path, [(long, PAIRS[0][1]), PAIRS[0]])
    assert "1 of 2 pairs had a side longer than 250 pieces" in caplog.text
    vocab = tiny_vocab()
    cut = vocab.decode([vocab.encode([long])[0][:249]])[0]
    assert found == pytest.approx(expected([(cut, PAIRS[0][1]), PAIRS[0]]), abs=5e-5)


def test_sides_of_unequal_length(tmp_path):
    model, vocab = trained_files()
    sides = write(tmp_path / "a.zst", ["a", "b"]), write(tmp_path / "b.zst", ["1"])
    with pytest.raises(UserError, match="ends after 1 lines"):
        score.score(model, (vocab, vocab), sides, tmp_path / "scores.zst")
    assert not (tmp_path / "scores.zst").exists()


def run_filter(folder, scores, fraction):
    src = write(folder / "all.en.zst", [f"s{place}" for place in range(len(scores))])
    trg = write(folder / "all.de.zst", [f"t{place}" for place in range(len(scores))])
    files = ["--corpus-src", str(src), "--corpus-trg", str(trg)]
    files += ["--scores", str(write(folder / "scores.zst", scores)), "--stats", str(folder / "stats.json")]
    outputs = ["--output-src", str(folder / "en.zst"), "--output-trg", str(folder / "de.zst")]
    score_filter.main([*files, *outputs, "--remove-fraction", fraction])
    kept = [line.removeprefix("s") for line in read_lines(folder / "en.zst")]
    assert [line.removeprefix("t") for line in read_lines(folder / "de.zst")] == kept
    return [int(place) for place in kept], json.loads((folder / "stats.json").read_text())


@given(
    scores=st.lists(st.sampled_from([-3.0, -2.5, -1.0, 0.0, math.nan, math.inf, -math.inf]), max_size=30),
    percent=st.integers(0, 99),
)
def test_exactly_the_worst_share_goes(tmp_path_factory, scores, percent):
    kept, stats = run_filter(tmp_path_factory.mktemp("filter"), [str(score) for score in scores], f"0.{percent:02d}")
    count = percent * len(scores) // 100
    ranked = sorted(range(len(scores)), key=lambda place: scores[place] if math.isfinite(scores[place]) else -math.inf)
    assert kept == sorted(ranked[count:])
    assert (stats["read"], stats["kept"], stats["removed"]) == (len(scores), len(kept), {"backward-score": count})


def test_the_share_is_exact(tmp_path):
    # In floating point 0.29 x 100 is 28.999999999999996.
    kept, stats = run_filter(tmp_path, [str(-place) for place in range(100)], "0.29")
    assert kept == list(range(71))
    assert stats["lowest-score-kept"] == -70 and stats["mean-score"] == -49.5


def test_bad_scores_and_fractions(tmp_path, capsys):
    with pytest.raises(UserError, match=r"scores\.zst:2: 'high' is not a number"):
        run_filter(tmp_path, ["-1", "high"], "0.5")
    for fraction in ("1", "-0.1", "half"):
        with pytest.raises(SystemExit):
            run_filter(tmp_path, ["-1"], fraction)
        assert fraction in capsys.readouterr().err
    with pytest.raises(UserError, match="ends after"):
        src, scores = write(tmp_path / "s.zst", ["a"]), write(tmp_path / "x.zst", ["-1", "-2"])
        score_filter.filter_corpus((src, src), scores, 0, (tmp_path / "1", tmp_path / "2"), tmp_path / "st.json")
    assert not (tmp_path / "en.zst").exists() and not (tmp_path / "1").exists()
