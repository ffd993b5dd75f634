"""Encoded sentence pairs, packed into batches of similar length."""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Alignment:
    """Guided alignment of a batch: entries of a [B, T, S] tensor, whose target positions each sum to one.

    `index` [N, 3] holds (row, target position, source position), `weight` [N] the share of the source position.
    """

    index: Tensor
    weight: Tensor

    def to(self, device: torch.device) -> "Alignment":
        return Alignment(self.index.to(device, non_blocking=True), self.weight.to(device, non_blocking=True))


@dataclass(frozen=True)
class Distributions:
    """Stored distributions of a teacher over the next piece, for the N real target positions of a batch, row by row.

    `ids` [N, k] are the likeliest pieces, `probabilities` [N, k] theirs, float32; what is missing to 1 is all others'.
    """

    ids: Tensor
    probabilities: Tensor

    def to(self, device: torch.device) -> "Distributions":
        return Distributions(self.ids.to(device, non_blocking=True), self.probabilities.to(device, non_blocking=True))

    def __getitem__(self, part: slice) -> "Distributions":
        return Distributions(self.ids[part], self.probabilities[part])


@dataclass(frozen=True)
class Batch:
    """Padded sentence pairs: ids [B, S] and [B, T] with masks that are True on real positions, ends of sentence
    included. Padding has id 0.
    """

    src: Tensor
    src_mask: Tensor
    trg: Tensor
    trg_mask: Tensor
    alignment: Alignment | None
    distributions: Distributions | None = None

    def to(self, device: torch.device) -> "Batch":
        return Batch(
            self.src.to(device, non_blocking=True),
            self.src_mask.to(device, non_blocking=True),
            self.trg.to(device, non_blocking=True),
            self.trg_mask.to(device, non_blocking=True),
            self.alignment.to(device) if self.alignment else None,
            self.distributions.to(device) if self.distributions else None,
        )


@dataclass(frozen=True)
class PairSizes:
    """Of some pairs in batches: target tokens, real positions and padded positions (both sides), and the sums over
    pairs of the products of lengths, which attention computes with: source by source, by target, target by target.
    """

    target_tokens: int = 0
    real: int = 0
    padded: int = 0
    src_src: int = 0
    src_trg: int = 0
    trg_trg: int = 0

    def __add__(self, other: "PairSizes") -> "PairSizes":
        return PairSizes(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


class Ragged:
    """Sequences of whole numbers of unequal length in one flat array: 4 bytes a number instead of 36 in a list."""

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        self.lengths: Ints = np.fromiter((len(sequence) for sequence in sequences), np.int64, len(sequences))
        self.starts: Ints = np.concatenate(([0], np.cumsum(self.lengths)[:-1])) if len(sequences) else self.lengths
        self.flat = np.fromiter(chain.from_iterable(sequences), np.int32, int(self.lengths.sum()))

    def padded(self, rows: Ints) -> tuple[Tensor, Tensor]:
        """Rows as a matrix of ids, zero where there is nothing, and its mask."""
        lengths = self.lengths[rows, None]
        columns = np.arange(lengths.max())
        mask = columns < lengths
        index = np.minimum(self.starts[rows, None] + columns, len(self.flat) - 1)
        return torch.from_numpy(np.where(mask, self.flat[index], 0).astype(np.int64)), torch.from_numpy(mask)

    def joined(self, rows: Ints) -> Ints:
        """The numbers of several rows one after the other."""
        return np.concatenate([self.flat[self.starts[row] : self.starts[row] + self.lengths[row]] for row in rows])


class Pool:
    """Encoded pairs among which batches are formed.

    `src` and `trg` hold ids with the end of sentence. `alignments`, when there are any, hold for each pair its points
    as source position, target position, source position, …; a pair may have none.
    """

    def __init__(
        self,
        src: Sequence[Sequence[int]],
        trg: Sequence[Sequence[int]],
        alignments: Sequence[Sequence[int]] | None,
    ) -> None:
        self.src, self.trg = Ragged(src), Ragged(trg)
        self.alignments = Ragged(alignments) if alignments is not None else None

    def __len__(self) -> int:
        return len(self.src.lengths)

    def pack(self, budget: int, max_rows: int = 0) -> list[Ints]:
        """Rows in batches of at most `budget` positions of the longer side (padding included) and `max_rows` rows.

        Pairs are ordered by the length of their longer side, and within a length by how much the source is longer,
        back and forth, so that neighbours are alike on both sides. Sorting is stable: the order in which pairs were
        read decides between equals, so batches differ from epoch to epoch.
        """
        src, trg = self.src.lengths, self.trg.lengths
        longer = np.maximum(src, trg)
        order = np.lexsort((np.where(longer % 2 == 0, src - trg, trg - src), longer))
        batches, start, width = [], 0, 0
        for end, row_width in enumerate(longer[order].tolist()):
            rows = end - start + 1
            if end > start and (rows * max(width, row_width) > budget or 0 < max_rows < rows):
                batches.append(order[start:end])
                start, width = end, 0
            width = max(width, row_width)
        if len(order):
            batches.append(order[start:])
        return batches

    def sizes(self, rows: Ints) -> PairSizes:
        src, trg = self.src.lengths[rows], self.trg.lengths[rows]
        return PairSizes(
            target_tokens=int(trg.sum()),
            real=int(src.sum() + trg.sum()),
            padded=int(len(rows) * (src.max() + trg.max())),
            src_src=int(src @ src),
            src_trg=int(src @ trg),
            trg_trg=int(trg @ trg),
        )

    def batch(self, rows: Ints) -> Batch:
        src, src_mask = self.src.padded(rows)
        trg, trg_mask = self.trg.padded(rows)
        return Batch(src, src_mask, trg, trg_mask, self._alignment(rows, trg.shape[1]))

    def _alignment(self, rows: Ints, width: int) -> Alignment | None:
        if self.alignments is None:
            return None
        points = self.alignments.joined(rows).reshape(-1, 2)
        row = np.repeat(np.arange(len(rows)), self.alignments.lengths[rows] // 2)
        target = row * width + points[:, 1]
        weight = 1.0 / np.bincount(target, minlength=1)[target]
        index = np.stack((row, points[:, 1], points[:, 0]), axis=1)
        return Alignment(torch.from_numpy(index), torch.from_numpy(weight.astype(np.float32)))


def grouped(batches: Sequence[Ints], size: int) -> Iterator[Sequence[Ints]]:
    """Consecutive groups of `size` batches; the last one may be smaller."""
    for start in range(0, len(batches), size):
        yield batches[start : start + size]
