import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.clean import merge_devset, merge_distillation, merge_mono, merge_parallel, shuffle
from pipeline.common.errors import UserError
from pipeline.common.files import read_lines, write_lines

Pairs = list[tuple[str, str]]


def write(path: Path, lines: list[str]) -> str:
    with write_lines(path) as file:
        for line in lines:
            file.write(line)
    return str(path)


def corpus(folder: Path, name: str, pairs: Pairs) -> list[str]:
    sides = zip(*pairs, strict=True) if pairs else ((), ())
    return [name, *(write(folder / f"{name}.{side}.zst", list(lines)) for side, lines in zip("st", sides, strict=True))]


def merge(step: Any, folder: Path, corpora: dict[str, Pairs], held_out: dict[str, Pairs], *extra: str) -> Pairs:
    flags = [flag for name, pairs in corpora.items() for flag in ("--corpus", *corpus(folder, name, pairs))]
    flags += [flag for name, pairs in held_out.items() for flag in ("--held-out", *corpus(folder, name, pairs))]
    out = [folder / "out.s.zst", folder / "out.t.zst"]
    step.main(
        [*flags, "--output-src", str(out[0]), "--output-trg", str(out[1]), "--stats", str(folder / "st.json"), *extra]
    )
    return list(zip(read_lines(out[0]), read_lines(out[1]), strict=True))


def stats(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "st.json").read_text())
    return value


A = [("one", "eins"), ("uno", "eins"), ("two", "zwei"), ("König", "K\u00f6nig")]
B = [("2", "zwei "), ("three", "drei"), ("king", "Ko\u0308nig"), ("Hello  World", "Hallo Erde"), ("four", "VIER")]
TEST = [("hello world", "hallo welt"), ("vier?", "vier")]


def test_merge_parallel(tmp_path: Path) -> None:
    merged = merge(merge_parallel, tmp_path, {"a": A, "b": B}, {"test": TEST, "dev": [("x", "vier")]})
    assert merged == [("one", "eins"), ("two", "zwei"), ("König", "König"), ("three", "drei")]
    assert stats(tmp_path) == {
        "corpora": {
            "a": {"read": 4, "kept": 3, "duplicate": 1, "held-out": 0, "not-sampled": 0},
            "b": {"read": 5, "kept": 1, "duplicate": 2, "held-out": 2, "not-sampled": 0},
        },
        "held-out": {"test": 2, "dev": 1},
        "lines": 4,
    }


def test_a_held_out_source_is_no_reason_to_drop_a_target(tmp_path: Path) -> None:
    assert merge(merge_parallel, tmp_path, {"a": [("eins", "one")]}, {"test": [("one", "eins")]}) == [("eins", "one")]


def test_best_score_wins(tmp_path: Path) -> None:
    scores = write(tmp_path / "scores.zst", ["0.1", "0.7", "0", "1"])
    merged = merge(merge_parallel, tmp_path, {"a": A}, {}, "--scores", "a", scores)
    assert merged == [("uno", "eins"), ("two", "zwei"), ("König", "König")]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["1"], "1 scores for the 4 lines"),
        (["1", "x", "2", "3"], "line 2: 'x' is not a score"),
        (["nan"] * 4, "line 1"),
    ],
)
def test_bad_scores(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        merge(merge_parallel, tmp_path, {"a": A}, {}, "--scores", "a", write(tmp_path / "scores.zst", lines))


def test_scores_for_some_corpora_only(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="each of the corpora a, b"):
        merge(merge_parallel, tmp_path, {"a": A, "b": B}, {}, "--scores", "a", write(tmp_path / "s.zst", ["1"] * 4))


def test_max_sentences_samples_evenly_and_by_seed(tmp_path: Path) -> None:
    many = {name: [(f"{name} {n}", f"{name}-{n}") for n in range(500)] for name in "ab"}
    first = merge(merge_parallel, tmp_path, many, {}, "--max-sentences", "100", "--seed", "3")
    assert len(first) == 100
    assert first == sorted(first, key=lambda pair: (pair[0][0], int(pair[0][2:])))
    assert 25 <= stats(tmp_path)["corpora"]["a"]["kept"] <= 75
    assert merge(merge_parallel, tmp_path, many, {}, "--max-sentences", "100", "--seed", "3") == first
    assert merge(merge_parallel, tmp_path, many, {}, "--max-sentences", "100", "--seed", "4") != first


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("abc"), st.text("xyz é", min_size=1, max_size=3)), min_size=1, max_size=20))
def test_targets_are_unique_and_pairs_stay_pairs(tmp_path: Path, pairs: Pairs) -> None:
    merged = merge(merge_parallel, tmp_path, {"a": pairs, "b": pairs[::-1]}, {})
    targets = [target.strip() for _, target in merged]
    assert len(targets) == len(set(targets))
    assert set(targets) == {target.strip() for _, target in pairs}
    assert set(merged) <= set(pairs)


def test_merge_devset_keeps_other_translations_of_a_sentence(tmp_path: Path) -> None:
    merged = merge(merge_devset, tmp_path, {"a": A, "b": [*B, A[0]]}, {"test": TEST})
    assert merged == [*A, B[0], B[1], B[2]]
    assert stats(tmp_path)["corpora"]["b"] == {"read": 6, "kept": 3, "duplicate": 1, "held-out": 2, "not-sampled": 0}


def test_merge_distillation_is_a_shuffled_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shuffle, "BUCKET_LINES", 30)
    a = [(f"a {n}", f"A {n}") for n in range(100)]
    merged = merge(merge_distillation, tmp_path, {"a": a, "b": [*a[:10], ("a 1", "other")]}, {}, "--seed", "1")
    assert Counter(merged) == Counter([*a, ("a 1", "other")])
    assert merged != sorted(merged)
    assert merge(merge_distillation, tmp_path, {"a": a, "b": [*a[:10], ("a 1", "other")]}, {}) == merged


def mono(folder: Path, corpora: dict[str, list[str]], *extra: str) -> list[str]:
    flags = [f for name, lines in corpora.items() for f in ("--corpus", name, write(folder / f"{name}.zst", lines))]
    out = folder / "mono.de.zst"
    merge_mono.main(["--lang", "de", *flags, "--output", str(out), "--stats", str(folder / "st.json"), *extra])
    return list(read_lines(out))


def test_merge_mono(tmp_path: Path) -> None:
    parallel = write(tmp_path / "parallel.zst", ["Ko\u0308nig", "nicht da"])
    test = write(tmp_path / "test.zst", ["VIER"])
    corpora = {"a": ["eins", "zwei", "eins "], "b": ["König", "vier", "zwei", "fünf"]}
    lines = mono(tmp_path, corpora, "--parallel", parallel, "--held-out", "test", test)
    assert sorted(lines) == ["eins", "fünf", "zwei"]
    assert stats(tmp_path) == {
        "lang": "de",
        "corpora": {
            "a": {"read": 3, "kept": 2, "duplicate": 1, "held-out": 0, "in-parallel": 0, "not-sampled": 0},
            "b": {"read": 4, "kept": 1, "duplicate": 1, "held-out": 1, "in-parallel": 1, "not-sampled": 0},
        },
        "held-out": {"test": 1},
        "lines": 3,
    }


def test_merge_mono_samples_and_shuffles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shuffle, "BUCKET_LINES", 10)
    lines = [f"Satz {number:03}" for number in range(200)]
    chosen = mono(tmp_path, {"a": lines}, "--max-sentences", "50", "--seed", "2")
    assert len(set(chosen)) == 50
    assert set(chosen) <= set(lines)
    assert chosen != sorted(chosen)
    assert mono(tmp_path, {"a": lines}, "--max-sentences", "50", "--seed", "2") == chosen


def test_nothing_left(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="merging a left no lines: 2 were read, 2 in held-out sets"):
        merge(merge_devset, tmp_path, {"a": TEST}, {"test": TEST})
    assert not list(tmp_path.glob("out*"))
    with pytest.raises(UserError, match="left no lines"):
        merge(merge_parallel, tmp_path, {"a": []}, {})


def test_unequal_sides(tmp_path: Path) -> None:
    src, trg = write(tmp_path / "s.zst", ["one", "two"]), write(tmp_path / "t.zst", ["eins"])
    out = ["--output-src", str(tmp_path / "o.s.zst"), "--output-trg", str(tmp_path / "o.t.zst")]
    with pytest.raises(UserError, match=r"t\.zst ends after 1 lines"):
        merge_parallel.main(["--corpus", "a", src, trg, *out, "--stats", str(tmp_path / "st.json")])


def test_the_same_name_twice(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'a' is given to more than one corpus"):
        mono(tmp_path, {"a": ["eins"]}, "--corpus", "a", str(tmp_path / "a.zst"))
