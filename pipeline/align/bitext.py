"""Sentence pairs as arrays of token ids, read in chunks of bounded size."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
NO_LIMIT = 1 << 62


class Tokens(Protocol):
    """How one side of a corpus is cut into tokens and numbered from 0."""

    complete: bool  # whether all ids are known beforehand, so that `fresh` copies nothing

    def __len__(self) -> int:
        """Number of ids given out so far."""

    def encode(self, lines: list[str]) -> list[list[int]]: ...

    def fresh(self) -> Self:
        """The same numbering, to be extended for one chunk without changing this one."""


@dataclass(frozen=True)
class Bitext:
    """Sentence pairs: the ids of all tokens of each side one after the other, and the lengths of the sentences."""

    src: Ints  # (source tokens,)
    trg: Ints  # (target tokens,)
    src_lengths: Ints  # (pairs,)
    trg_lengths: Ints  # (pairs,)
    too_long: int = 0  # pairs that are too long to be aligned; they stand here without tokens

    @classmethod
    def from_pairs(cls, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], too_long: int = 0) -> "Bitext":
        sides = [[pair[side] for pair in pairs] for side in (0, 1)]
        ids = [np.fromiter(itertools.chain.from_iterable(side), np.int64) for side in sides]
        lengths = [np.fromiter(map(len, side), np.int64, len(pairs)) for side in sides]
        return cls(ids[0], ids[1], lengths[0], lengths[1], too_long)

    def __len__(self) -> int:
        return len(self.src_lengths)

    def split(self, most_cells: int) -> Iterator["Bitext"]:
        """The same pairs in bitexts of about `most_cells` cells; the first one has the count of those too long."""
        sizes = np.cumsum(self.src_lengths * self.trg_lengths + self.src_lengths + self.trg_lengths + 1)
        cuts = np.flatnonzero(np.diff(sizes // most_cells)) + 1
        sides = [
            np.split(ids, np.append(0, np.cumsum(lengths))[cuts])
            for ids, lengths in ((self.src, self.src_lengths), (self.trg, self.trg_lengths))
        ]
        lengths = [np.split(lengths, cuts) for lengths in (self.src_lengths, self.trg_lengths)]
        too_long = self.too_long
        for src, trg, src_lengths, trg_lengths in zip(*sides, *lengths, strict=True):
            yield Bitext(src, trg, src_lengths, trg_lengths, too_long)
            too_long = 0


class BitextReader:
    """Takes bitexts of at most `most_cells` cells from a stream of sentence pairs.

    A cell is a combination of a source and a target token of one pair. A pair with more cells than that by itself, or
    with more than `longest` tokens on a side, keeps its place but gives up its tokens, and is counted.
    """

    BATCH = 1000

    def __init__(self, pairs: Iterable[tuple[str, str]], most_cells: int, longest: int = NO_LIMIT) -> None:
        self.pairs = iter(pairs)
        self.most_cells, self.longest = most_cells, longest
        self._pending: list[tuple[str, str]] = []

    def read(self, src: Tokens, trg: Tokens) -> Bitext | None:
        """The next chunk, or None at the end."""
        chunk: list[tuple[Sequence[int], Sequence[int]]] = []
        size = too_long = 0
        while batch := self._pending or list(itertools.islice(self.pairs, self.BATCH)):
            self._pending = []
            src_ids, trg_ids = src.encode([pair[0] for pair in batch]), trg.encode([pair[1] for pair in batch])
            for number, ids in enumerate(zip(src_ids, trg_ids, strict=True)):
                cells = len(ids[0]) * len(ids[1])
                if fits := cells <= self.most_cells and max(len(ids[0]), len(ids[1])) <= self.longest:
                    size += cells + len(ids[0]) + len(ids[1]) + 1  # pairs of few cells need memory, too
                if size > self.most_cells and chunk:
                    self._pending = batch[number:]
                    return Bitext.from_pairs(chunk, too_long)
                chunk.append(ids if fits else ((), ()))
                too_long += not fits
        return Bitext.from_pairs(chunk, too_long) if chunk else None
