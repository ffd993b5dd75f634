import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.train.batches import PairSizes, Pool
from pipeline.train.ragged import Ragged


def make_pool(lengths: list[tuple[int, int]], points: list[list[int]] | None = None) -> Pool:
    src = [[2 + (row + i) % 9 for i in range(s)] for row, (s, _) in enumerate(lengths)]
    trg = [[3 + (row + i) % 9 for i in range(t)] for row, (_, t) in enumerate(lengths)]
    return Pool(Ragged.of(src), Ragged.of(trg), Ragged.of(points) if points is not None else None)


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), max_size=60),
    st.integers(30, 200),
    st.integers(0, 7),
)
def test_every_row_is_in_one_batch_within_the_budget(
    lengths: list[tuple[int, int]], budget: int, max_rows: int
) -> None:
    batches = make_pool(lengths).pack(budget, max_rows)
    assert sorted(np.concatenate(batches).tolist() if batches else []) == list(range(len(lengths)))
    for rows in batches:
        longest = max(max(lengths[row]) for row in rows)
        assert len(rows) * longest <= budget
        assert not max_rows or len(rows) <= max_rows


def test_padding_is_below_eight_percent() -> None:
    rng = np.random.default_rng(1)
    src = np.clip(rng.lognormal(2.8, 0.6, 20_000).astype(int), 1, 100)
    trg = np.clip(np.rint(src * np.exp(rng.normal(0.1, 0.2, 20_000))).astype(int), 1, 100)
    pool = make_pool(list(zip(src.tolist(), trg.tolist(), strict=True)))
    sizes = sum((pool.sizes(rows) for rows in pool.pack(2000)), PairSizes())
    assert sizes.real == int(src.sum() + trg.sum())
    assert 1 - sizes.real / sizes.padded < 0.08


def test_a_batch_is_padded_and_masked() -> None:
    pool = Pool(Ragged.of([[5, 6, 0], [7, 0]]), Ragged.of([[8, 0], [9, 9, 9, 0]]), None)
    batch = pool.batch(np.array([1, 0]))
    assert batch.src.tolist() == [[7, 0, 0], [5, 6, 0]]
    assert batch.src_mask.tolist() == [[True, True, False], [True, True, True]]
    assert batch.trg.tolist() == [[9, 9, 9, 0], [8, 0, 0, 0]]
    assert batch.trg_mask.sum().item() == 6
    assert pool.sizes(np.array([1, 0])) == PairSizes(6, real=11, padded=14, src_src=13, src_trg=14, trg_trg=20)


def test_alignments_become_distributions_over_the_source() -> None:
    # points are source, target: target 0 of the second pair has two sources
    pool = make_pool([(2, 2), (3, 2), (1, 1)], [[1, 1], [0, 0, 1, 0, 2, 1], []])
    batch = pool.batch(np.array([1, 2, 0]))
    assert batch.alignment is not None
    assert batch.alignment.index.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [2, 1, 1]]
    assert batch.alignment.weight.tolist() == pytest.approx([0.5, 0.5, 1.0, 1.0])
