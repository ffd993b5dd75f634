import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_bitext import make

from pipeline.align.bitext import Bitext, BitextReader
from pipeline.align.cells import BLOCK, Cells
from pipeline.align.em import DIRICHLET, P_NULL, Direction, align, exp_digamma
from pipeline.align.priors import Priors
from pipeline.align.words import Words

ids = st.lists(st.integers(0, 6), max_size=6)


@given(st.lists(st.tuples(ids, ids), max_size=8))
def test_each_cell_knows_its_word_pair_in_both_directions(pairs: list[tuple[list[int], list[int]]]) -> None:
    cells = Cells(Bitext.from_pairs(pairs), 7, 7)
    expected = {(s, t) for src, trg in pairs for s in src for t in trg}
    table = list(zip(cells.src.tolist(), cells.trg.tolist(), strict=True))
    assert table == sorted(expected)
    for side in (cells.forward, cells.backward):
        seen = [
            (int(side.ids[token]), table[pair], int(side.place[token]), row)
            for block in side.blocks
            for row, pairs_of_row in enumerate(side.pair_of_cell[block.cells].reshape(block.n, -1).tolist())
            for token, pair in zip(block.tokens, pairs_of_row, strict=True)
        ]
        forward = side is cells.forward
        generated, generating = (1, 0) if forward else (0, 1)
        assert sorted(seen) == sorted(
            (pair[generated][j], (pair[0][i], pair[1][j]) if forward else (pair[0][j], pair[1][i]), j, i)
            for pair in pairs
            for j in range(len(pair[generated]))
            for i in range(len(pair[generating]))
        )


def test_blocks_are_small_and_cover_frequent_words() -> None:
    draw = np.random.default_rng(1)
    pairs = [(draw.integers(0, 50, 30).tolist(), draw.integers(0, 5000, 30).tolist()) for _ in range(700)]
    cells = Cells(Bitext.from_pairs(pairs), 50, 5000)
    assert cells.forward.cells > 2 * BLOCK
    assert all(block.n * len(block.tokens) <= BLOCK for block in cells.forward.blocks)
    wanted = np.unique([s * 5000 + t for src, trg in pairs for s in set(src) for t in set(trg)])
    assert (cells.src * 5000 + cells.trg).tolist() == wanted.tolist()


def digamma(x: float) -> float:
    return (math.lgamma(x + 1e-5) - math.lgamma(x - 1e-5)) / 2e-5


def test_one_step_is_expectation_and_maximisation_by_the_book() -> None:
    pairs = [([0, 1], [0, 1, 1]), ([1], [1]), ([0, 2], [0, 2])]
    cells = Cells(Bitext.from_pairs(pairs), 3, 3)
    none = Priors.none().on(cells.src, cells.trg, 3, 3)
    direction = Direction(cells.forward, cells.src, 3, 3, none.forward, none.src_total, none.null_trg)
    tension, counts, null = direction.tension, {}, [0.0] * 3
    for src, trg in pairs:
        for j, target in enumerate(trg):
            prior = [math.exp(-tension * abs((i + 1) / len(src) - (j + 1) / len(trg))) for i in range(len(src))]
            joint = [(1 - P_NULL) * p / sum(prior) / 3 for p in prior]
            total = sum(joint) + P_NULL / 3
            null[target] += P_NULL / 3 / total
            for source, p in zip(src, joint, strict=True):
                counts[source, target] = counts.get((source, target), 0.0) + p / total
    direction.step()
    pairs_of_words = zip(cells.src.tolist(), cells.trg.tolist(), strict=True)
    assert direction.counts == pytest.approx([counts[pair] for pair in pairs_of_words], rel=1e-5)
    assert direction.null_counts == pytest.approx(null, rel=1e-5)
    mass = [sum(n for (source, _), n in counts.items() if source == word) for word in range(3)]
    seen = [len({target for source, target in counts if source == word}) for word in range(3)]
    for source, target, p in zip(cells.src.tolist(), cells.trg.tolist(), direction.table.tolist(), strict=True):
        x, y = counts[source, target] + DIRICHLET, mass[source] + DIRICHLET * seen[source]
        assert p == pytest.approx(math.exp(digamma(x) - digamma(y)), rel=1e-4)


def test_priors_teach_their_own_direction() -> None:
    bitext = Bitext.from_pairs([([0, 1], [0, 1])])
    pairs, zeros = (np.array([0, 1]), np.array([1, 0])), np.zeros(2)
    crossed = np.array([9.0, 9.0])
    for forward, backward in ((crossed, zeros), (zeros, crossed)):
        result = align(bitext, 2, 2, Priors(*pairs, forward, backward, zeros, zeros))
        assert (result.forward.tolist() == [1, 0]) == (forward is crossed)
        assert (result.backward.tolist() == [1, 0]) == (backward is crossed)


def test_tension_falls_where_the_order_is_reversed() -> None:
    def tension(reverse: bool) -> float:
        src, trg, _ = make(500, reverse=reverse)
        sides = Words(), Words()
        bitext = BitextReader(zip(src, trg, strict=True), 10**7).read(*sides)
        assert bitext is not None
        return align(bitext, len(sides[0]), len(sides[1])).tensions[0]

    assert tension(reverse=True) < 0.5 < 3 < tension(reverse=False)


@pytest.mark.parametrize(
    ("x", "digamma"),
    [(1.0, -0.5772156649), (0.5, -1.9635100260), (0.01, -100.5608854579), (10.0, 2.2517525890), (1e6, 13.8155100580)],
)
def test_exp_digamma(x: float, digamma: float) -> None:
    assert exp_digamma(np.array([x])) == pytest.approx([math.exp(digamma)], rel=3e-6)


@given(st.lists(st.tuples(ids, ids), max_size=30), st.integers(1, 60))
def test_reader_keeps_all_pairs_in_order(pairs: list[tuple[list[int], list[int]]], most_cells: int) -> None:
    lines = [(" ".join(map(str, src)), " ".join(map(str, trg))) for src, trg in pairs]
    reader = BitextReader(lines, most_cells)
    found: list[tuple[list[str], list[str]]] = []
    too_long = 0
    while bitext := reader.read(src := Words(), trg := Words()):
        assert int(bitext.src_lengths @ bitext.trg_lengths) <= most_cells
        names = list(src.forms), list(trg.forms)
        src_parts = np.split(bitext.src, np.cumsum(bitext.src_lengths)[:-1])
        trg_parts = np.split(bitext.trg, np.cumsum(bitext.trg_lengths)[:-1])
        for one, other in zip(src_parts, trg_parts, strict=True):
            found.append(([names[0][n] for n in one], [names[1][n] for n in other]))
        too_long += bitext.too_long
    expected = [(s.split(), t.split()) if len(s.split()) * len(t.split()) <= most_cells else ([], []) for s, t in lines]
    assert found == expected
    assert too_long == sum(len(src) * len(trg) > most_cells for src, trg in pairs)


@given(st.lists(st.tuples(ids, ids), min_size=1, max_size=30), st.integers(1, 60), st.integers(1, 8))
def test_splitting_keeps_all_pairs_in_order(
    pairs: list[tuple[list[int], list[int]]], most_cells: int, longest: int
) -> None:
    lines = [(" ".join(map(str, src)), " ".join(map(str, trg))) for src, trg in pairs]
    whole = BitextReader(lines, 10**6, longest).read(Words(), Words())
    assert whole is not None
    assert whole.too_long == sum(max(map(len, pair)) > longest for pair in pairs)
    assert int(whole.src_lengths.max()) <= longest
    parts = list(whole.split(most_cells))
    for name in ("src", "trg", "src_lengths", "trg_lengths"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert joined.tolist() == getattr(whole, name).tolist()
    assert sum(part.too_long for part in parts) == whole.too_long
    for part in parts:
        assert len(part.src) == part.src_lengths.sum() and len(part.trg) == part.trg_lengths.sum()
        # Only the pair that fills a part may go beyond it.
        assert int(part.src_lengths @ part.trg_lengths) <= most_cells + longest**2
