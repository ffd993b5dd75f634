"""Encoded sentence pairs, packed into batches of similar length."""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.model.distributions import probabilities
from pipeline.train.ragged import Ints, Ragged


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

    def pinned(self) -> "Distributions":
        return Distributions(self.ids.pin_memory(), self.probabilities.pin_memory())

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

    def pinned(self) -> "Batch":
        """In memory from which a GPU copies while others compute."""
        alignment = self.alignment
        return Batch(
            self.src.pin_memory(),
            self.src_mask.pin_memory(),
            self.trg.pin_memory(),
            self.trg_mask.pin_memory(),
            Alignment(alignment.index.pin_memory(), alignment.weight.pin_memory()) if alignment else None,
            self.distributions.pinned() if self.distributions else None,
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


class Pool:
    """Encoded pairs among which batches are formed.

    `src` and `trg` hold ids with the end of sentence. `alignments`, when there are any, hold for each pair its points
    as source position, target position, source position, …; a pair may have none. `distributions`, when there are any,
    hold for each target id the same number of pairs of an id and thousandths of a nat.
    """

    def __init__(
        self, src: Ragged, trg: Ragged, alignments: Ragged | None, distributions: Ragged | None = None
    ) -> None:
        self.src, self.trg, self.alignments, self.distributions = src, trg, alignments, distributions

    def __len__(self) -> int:
        return len(self.src)

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
        src, src_mask, trg, trg_mask = map(torch.from_numpy, (*self.src.padded(rows), *self.trg.padded(rows)))
        return Batch(src, src_mask, trg, trg_mask, self._alignment(rows, trg.shape[1]), self._distributions(rows))

    def _distributions(self, rows: Ints) -> Distributions | None:
        if self.distributions is None:
            return None
        numbers = self.distributions.take(rows).flat.reshape(int(self.trg.lengths[rows].sum()), -1, 2)
        ids = torch.from_numpy(numbers[..., 0].astype(np.int64))
        return Distributions(ids, torch.from_numpy(probabilities(numbers[..., 1])))

    def _alignment(self, rows: Ints, width: int) -> Alignment | None:
        if self.alignments is None:
            return None
        points = self.alignments.take(rows).flat.reshape(-1, 2).astype(np.int64)
        row = np.repeat(np.arange(len(rows)), self.alignments.lengths[rows] // 2)
        target = row * width + points[:, 1]
        weight = 1.0 / np.bincount(target, minlength=1)[target]
        index = np.stack((row, points[:, 1], points[:, 0]), axis=1)
        return Alignment(torch.from_numpy(index), torch.from_numpy(weight.astype(np.float32)))


def grouped(batches: Sequence[Ints], size: int) -> Iterator[Sequence[Ints]]:
    """Consecutive groups of `size` batches; the last one may be smaller."""
    for start in range(0, len(batches), size):
        yield batches[start : start + size]
