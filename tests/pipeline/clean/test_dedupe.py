import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clean import dedupe, shuffle
from pipeline.clean.dedupe import Digests, first_occurrences, members, sample
from pipeline.clean.shuffle import shuffled


def digests_of(lines: list[str]) -> Digests:
    digests = Digests()
    for line in lines:
        digests.add(line)
    return digests


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans())), st.integers(1, 5))
def test_first_occurrences(lines: list[tuple[str, bool]], part: int) -> None:
    candidates = np.array([candidate for _, candidate in lines], dtype=np.bool_)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dedupe, "_PART", part)
        keep = first_occurrences(digests_of([line for line, _ in lines]).array(), candidates)
    seen: set[str] = set()
    expected = []
    for line, candidate in lines:
        expected.append(candidate and line not in seen)
        if candidate:
            seen.add(line)
    assert keep.tolist() == expected


def test_best_score_wins_and_the_first_of_equals() -> None:
    digests = digests_of(["a", "b", "a", "a", "b"]).array()
    scores = np.array([1, 2, 3, 3, 2], dtype=np.float32)
    assert first_occurrences(digests, np.ones(5, np.bool_), scores).tolist() == [False, True, True, False, False]


@given(st.sets(st.integers(0, 50)), st.lists(st.integers(0, 50)))
def test_members(others: set[int], lines: list[int]) -> None:
    known = np.array(sorted(others), dtype=np.uint64)
    assert members(np.array(lines, dtype=np.uint64), known).tolist() == [line in others for line in lines]


@given(st.lists(st.booleans()), st.integers(1, 20), st.integers(0, 5))
def test_sample(keep: list[bool], size: int, seed: int) -> None:
    mask = np.array(keep, dtype=np.bool_)
    chosen = sample(mask, size, seed)
    assert int(chosen.sum()) == min(size, sum(keep))
    assert not (chosen & ~mask).any()
    assert (sample(mask, size, seed) == chosen).all()


def test_sample_is_uniform() -> None:
    mask = np.ones(10, dtype=np.bool_)
    hits = sum(sample(mask, 3, seed).astype(int) for seed in range(2000))
    assert all(500 < hit < 700 for hit in hits)  # 600 expected, standard deviation 20


def test_memory_per_line() -> None:
    count = 3_000_000
    rng = np.random.default_rng(1)
    tracemalloc.start()
    try:
        digests = Digests()
        digests._bytes += rng.choice(np.random.PCG64(1).random_raw(count // 2), count).tobytes()
        tracemalloc.reset_peak()
        candidates = np.ones(count, dtype=np.bool_)
        keep = first_occurrences(digests.array(), candidates)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak / count <= 24
    assert keep.sum() == len(np.unique(digests.array()))


def test_growing_takes_little_more_than_eight_bytes_per_line() -> None:
    count = 200_000
    tracemalloc.start()
    try:
        digests = Digests()
        for number in range(count):
            digests.add(str(number))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak / count <= 20


@pytest.mark.parametrize("bucket", [1000, 7])
def test_shuffle_is_a_seeded_permutation(tmp_path: Path, bucket: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shuffle, "BUCKET_LINES", bucket)
    rows = [(f"source {number}", f"target {number}") for number in range(100)]
    once = list(shuffled(rows, len(rows), 2, 1, tmp_path))
    assert Counter(once) == Counter(rows)
    assert once != rows
    assert list(shuffled(iter(rows), len(rows), 2, 1, tmp_path)) == once
    assert list(shuffled(rows, len(rows), 2, 2, tmp_path)) != once
    assert not list(tmp_path.iterdir())


def test_shuffle_puts_every_row_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shuffle, "BUCKET_LINES", 2)
    rows = [(letter,) for letter in "abcde"]
    places: Counter[tuple[str, int]] = Counter()
    for seed in range(300):
        places.update((row[0], place) for place, row in enumerate(shuffled(rows, 5, 1, seed, tmp_path)))
    assert all(30 <= places[letter, place] <= 95 for letter in "abcde" for place in range(5))  # 60 expected
