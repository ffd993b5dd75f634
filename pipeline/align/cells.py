"""The cells of a bitext: all combinations of a source and a target token of one sentence pair, as flat arrays."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.align.bitext import Bitext, Ints

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.signedinteger[Any]]

BLOCK = 1 << 17  # cells that are worked on at a time: few enough for the processor's cache


@dataclass(frozen=True)
class Block:
    """Generated tokens whose sentences have equally many generating tokens: (n, columns) cells, stored row by row."""

    n: int
    tokens: Ints  # (columns,): the generated tokens' places in their side of the bitext
    start: int  # place of the first cell

    @property
    def cells(self) -> slice:
        return slice(self.start, self.start + self.n * len(self.tokens))


def lay_out(generating_lengths: Ints, generated_lengths: Ints) -> Iterator[Block]:
    """Group the generated tokens by the length of the sentence that generates them. Tokens without one are left out."""
    lengths = np.repeat(generating_lengths, generated_lengths)
    order = np.argsort(lengths, kind="stable")
    distinct, counts = np.unique(lengths, return_counts=True)
    end = cell = 0
    for n, count in zip(distinct.tolist(), counts.tolist(), strict=True):
        start, end = end, end + count
        columns = max(1, BLOCK // max(1, n))
        for first in range(start, end, columns) if n else ():
            tokens = order[first : min(end, first + columns)]
            yield Block(n, tokens, cell)
            cell += n * len(tokens)


class Side:
    """One direction: the cells of the tokens it generates, and where in the table of word pairs each cell looks."""

    def __init__(self, ids: Ints, generating_lengths: Ints, generated_lengths: Ints) -> None:
        self.ids = ids  # of the generated tokens
        self.blocks = list(lay_out(generating_lengths, generated_lengths))
        self.cells = int(generating_lengths @ generated_lengths)
        sentence_starts = np.cumsum(generated_lengths) - generated_lengths
        self.place = np.arange(len(ids)) - np.repeat(sentence_starts, generated_lengths)  # j, from 0
        self.relative = ((self.place + 1) / np.repeat(generated_lengths, generated_lengths)).astype(np.float32)
        self.other_start = np.repeat(np.cumsum(generating_lengths) - generating_lengths, generated_lengths)
        self.pair_of_cell = np.empty(self.cells, np.int32)
        # Places of cells: half the width is half the work.
        self.address: type[np.signedinteger[Any]] = np.int32 if self.cells < 1 << 31 else np.int64

    def addresses(self) -> tuple[Places, Places]:
        """Of each generated token, the place of its first cell and the step to each next one."""
        column, stride = np.zeros((2, len(self.ids)), self.address)
        for block in self.blocks:
            column[block.tokens] = block.start + np.arange(len(block.tokens))
            stride[block.tokens] = len(block.tokens)
        return column, stride

    def distances(self, block: Block) -> Floats:
        """|i/n - j/m| of a block's cells (n, columns)."""
        rows = (np.arange(1, block.n + 1) / block.n).astype(np.float32)
        distances: Floats = rows[:, None] - self.relative[block.tokens]
        np.abs(distances, out=distances)
        return distances


class Cells:
    """The cells of a bitext for both directions, and the table of its distinct co-occurring word pairs.

    The pairs are sorted by source word, then target word. `forward` generates the target, `backward` the source.
    """

    def __init__(self, bitext: Bitext, src_types: int, trg_types: int) -> None:
        self.src_types, self.trg_types = src_types, trg_types
        self.forward = Side(bitext.trg, bitext.src_lengths, bitext.trg_lengths)
        self.backward = Side(bitext.src, bitext.trg_lengths, bitext.src_lengths)
        self.src, self.trg = self._find_pairs(bitext)  # (pairs,) each: the words of each distinct pair
        self._fill_forward()

    def _find_pairs(self, bitext: Bitext) -> tuple[Ints, Ints]:
        """Number the distinct word pairs, source word by source word, and write the numbers to the backward cells."""
        side = self.backward
        column, stride = side.addresses()
        other_start, trg = side.other_start.astype(side.address), bitext.trg.astype(side.address)
        lengths = np.repeat(bitext.trg_lengths, bitext.src_lengths)
        tokens = np.argsort(bitext.src, kind="stable")
        sources: list[Ints] = []
        targets: list[Ints] = []
        base = 0
        for part in _portions(bitext.src[tokens], lengths[tokens], self.trg_types):
            some = tokens[part]
            counts = lengths[some]
            starts = (np.cumsum(counts) - counts).astype(side.address)
            offset = np.arange(counts.sum(), dtype=side.address) - np.repeat(starts, counts)
            words = trg[np.repeat(other_start[some], counts) + offset]
            first, last = int(bitext.src[some[0]]), int(bitext.src[some[-1]])
            if first == last:
                pairs, numbers = _number(words, self.trg_types)
            else:
                keys = np.repeat(bitext.src[some] - first, counts) * self.trg_types + words
                pairs, numbers = _sort_and_number(keys)
            source, target = np.divmod(pairs, self.trg_types)
            sources.append(source + first)
            targets.append(target)
            cells = np.repeat(stride[some], counts)
            cells *= offset
            cells += np.repeat(column[some], counts)
            side.pair_of_cell[cells] = numbers + base
            base += len(pairs)
        empty = np.zeros(0, np.int64)
        return np.concatenate([empty, *sources]), np.concatenate([empty, *targets])

    def _fill_forward(self) -> None:
        column, stride = self.backward.addresses()
        place = self.forward.place.astype(column.dtype)
        for block in self.forward.blocks:
            sources = self.forward.other_start[block.tokens] + np.arange(block.n)[:, None]
            cells = stride[sources]
            cells *= place[block.tokens]
            cells += column[sources]
            self.forward.pair_of_cell[block.cells] = self.backward.pair_of_cell[cells].ravel()


def _portions(words: Ints, cells: Ints, other_types: int) -> Iterator[slice]:
    """Cut tokens that are sorted by word into runs of whole words: each word that has many cells by itself, the others
    together up to a block's size."""
    if not len(words):
        return
    ends = np.append(np.flatnonzero(words[1:] != words[:-1]) + 1, len(words))
    sizes = np.diff(np.cumsum(cells)[ends - 1], prepend=0)
    start = end = size = 0
    for word_end, word_size in zip(ends.tolist(), sizes.tolist(), strict=True):
        many = word_size > other_types // 32
        if size and (many or size + word_size > BLOCK):
            yield slice(start, end)
            start, size = end, 0
        end = word_end
        size += word_size
        if many:
            yield slice(start, end)
            start, size = end, 0
    if size:
        yield slice(start, end)


def _number(words: Places, types: int) -> tuple[Ints, Places]:
    """The distinct words in order, and the number of each word among them: np.unique, but without sorting."""
    seen = np.zeros(types, bool)
    seen[words] = True
    distinct = np.flatnonzero(seen)
    numbers = np.empty(types, np.int32)
    numbers[distinct] = np.arange(len(distinct), dtype=np.int32)
    return distinct, numbers[words]


def _sort_and_number(keys: Ints) -> tuple[Ints, Places]:
    """The same for sparse keys. The place of each key goes into its low bits, so that one plain sort does for both."""
    bits = len(keys).bit_length()
    packed = (keys << bits) | np.arange(len(keys))
    packed.sort()
    ordered = packed >> bits
    first = np.empty(len(keys), bool)
    first[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    numbers = np.empty(len(keys), np.int32)
    numbers[packed & ((1 << bits) - 1)] = np.cumsum(first, dtype=np.int32) - 1
    return ordered[first], numbers
