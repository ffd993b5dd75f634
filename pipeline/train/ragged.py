"""Sequences of whole numbers of unequal length, one after the other in one array, in memory or in a mapped file."""

import functools
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Ragged:
    """N sequences: `flat` holds their numbers, `offsets` [N + 1] where each begins, and the last one ends, in it."""

    def __init__(self, flat: NDArray[Any], offsets: Ints) -> None:
        self.flat, self.offsets = flat, offsets

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]], dtype: Any = np.int32) -> "Ragged":
        """2 or 4 bytes a number, by `dtype`, instead of 36 in a list."""
        offsets = np.fromiter(accumulate(map(len, sequences), initial=0), np.int64, len(sequences) + 1)
        return cls(np.fromiter(chain.from_iterable(sequences), dtype, int(offsets[-1])), offsets)

    @classmethod
    def joined(cls, arrays: Sequence[NDArray[Any]], dtype: Any) -> "Ragged":
        """`of` for sequences that are arrays already."""
        offsets = np.fromiter(accumulate(map(len, arrays), initial=0), np.int64, len(arrays) + 1)
        return cls(np.concatenate(arrays).astype(dtype) if arrays else np.zeros(0, dtype), offsets)

    @classmethod
    def concatenated(cls, parts: Sequence["Ragged"]) -> "Ragged":
        lengths = np.concatenate([part.lengths for part in parts])
        return cls(np.concatenate([part.flat for part in parts]), np.concatenate(([0], np.cumsum(lengths))))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @functools.cached_property
    def lengths(self) -> Ints:
        """[N]"""
        return np.diff(self.offsets)

    def take(self, rows: Ints) -> "Ragged":
        """Some of the sequences, in this order, copied."""
        starts = self.offsets[rows]
        offsets = np.concatenate(([0], np.cumsum(self.offsets[rows + 1] - starts)))
        index = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], np.diff(offsets))
        return Ragged(self.flat[index], offsets)

    def padded(self, rows: Ints) -> tuple[Ints, NDArray[np.bool_]]:
        """Rows as a matrix, zero where there is nothing, and its mask, True where there is something."""
        lengths = self.lengths[rows, None]
        columns = np.arange(lengths.max())
        mask = columns < lengths
        index = np.minimum(self.offsets[rows, None] + columns, len(self.flat) - 1)
        return np.where(mask, self.flat[index], 0).astype(np.int64), mask
