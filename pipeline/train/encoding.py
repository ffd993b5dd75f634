"""Rows of a corpus into ids: augmentation, SentencePiece with or without sampling, length limits, alignments of pieces.

Worker processes import this: nothing here may need torch.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from pipeline.common.augment.augmenter import Augmenter
from pipeline.common.errors import UserError
from pipeline.model.distributions import parse_distributions
from pipeline.model.vocab import EOS_ID
from pipeline.train.alignments import Offsets, align_pieces
from pipeline.train.ragged import Ints, Ragged
from pipeline.train.sampling import SubwordSampler
from pipeline.train.shuffle import Row


@dataclass(frozen=True)
class EncodedPair:
    """Ids of both sides with the end of sentence, alignment points as source, target, source, target, …, and stored
    distributions of a teacher as id, thousandths of a nat, id, …
    """

    src: list[int]
    trg: list[int]
    points: list[int]
    distributions: NDArray[np.int32]


_NOTHING = np.zeros(0, np.int32)
_LEFT_OUT = EncodedPair([], [], [], _NOTHING)


@dataclass(frozen=True)
class EncodedRows:
    """Ids of both sides of some pairs, and their alignment points and stored distributions if they are wanted; pairs
    that are left out are empty on both sides.
    """

    src: Ragged
    trg: Ragged
    points: Ragged | None = None
    distributions: Ragged | None = None

    @classmethod
    def concatenated(cls, parts: Sequence["EncodedRows"]) -> "EncodedRows":
        points = [part.points for part in parts if part.points is not None]
        distributions = [part.distributions for part in parts if part.distributions is not None]
        return cls(
            Ragged.concatenated([part.src for part in parts]),
            Ragged.concatenated([part.trg for part in parts]),
            Ragged.concatenated(points) if points else None,
            Ragged.concatenated(distributions) if distributions else None,
        )

    def __len__(self) -> int:
        return len(self.src)

    def take(self, rows: Ints) -> "EncodedRows":
        points = self.points.take(rows) if self.points is not None else None
        distributions = self.distributions.take(rows) if self.distributions is not None else None
        return EncodedRows(self.src.take(rows), self.trg.take(rows), points, distributions)

    def usable(self) -> "EncodedRows":
        """Without the pairs that are left out."""
        lengths = self.src.lengths
        return self if lengths.all() else self.take(np.flatnonzero(lengths))


class Encoder:
    """Encodes rows of (source, target) or (source, target, alignment points). Can be pickled.

    `alphas` are the sampling factors of the two sides (smaller ones draw more varied segmentations; 0 takes the best).
    `max_length` is the longest allowed number of pieces, without the end of sentence; longer pairs are left out, or
    cut when `crop` is set. `aligned` tells whether points of pieces are made of points of words; rows may have points
    for the augmenter alone. With `top_k` the last column of a row holds the distributions over so many pieces that a
    teacher stored for the sentence as it stands: neither sampling nor cropping goes with them.
    """

    def __init__(
        self,
        processors: tuple[sentencepiece.SentencePieceProcessor, sentencepiece.SentencePieceProcessor],
        alphas: Sequence[float] = (),
        max_length: int = 100,
        crop: bool = False,
        aligned: bool = True,
        augmenter: Augmenter | None = None,
        top_k: int = 0,
    ) -> None:
        self.processors = processors
        self.samplers = [
            SubwordSampler(processor, alpha) if alpha else None
            for processor, alpha in zip(processors, (*alphas, 0.0, 0.0)[:2], strict=True)
        ]
        self.max_length, self.crop, self.aligned, self.top_k = max_length, crop, aligned, top_k
        self.augmenter = augmenter if augmenter and augmenter.augmentation else None
        largest = max(max_length, *(processor.get_piece_size() for processor in processors))
        self.dtype = np.dtype(np.uint16 if largest < 1 << 16 else np.int32)

    @property
    def varies(self) -> bool:
        """Whether the same row may come out differently another time."""
        return self.augmenter is not None or any(self.samplers)

    def digest(self) -> str:
        """Of all that decides what a row becomes when nothing is random."""
        values = (self.max_length, self.crop, self.aligned, self.top_k, self.dtype.name)
        models = [processor.serialized_model_proto() for processor in self.processors]
        return hashlib.sha256(repr(values).encode() + b"".join(models)).hexdigest()

    def encode_rows(self, rows: Sequence[Row], seed: Sequence[int]) -> EncodedRows:
        """`encode`, after augmentation, in compact form."""
        if self.augmenter:
            rows = self.augmenter.augment(rows, random.Random(repr((*seed, "augmentation"))))
        pairs = [pair or _LEFT_OUT for pair in self.encode(rows, seed)]
        return EncodedRows(
            Ragged.of([pair.src for pair in pairs], self.dtype),
            Ragged.of([pair.trg for pair in pairs], self.dtype),
            Ragged.of([pair.points for pair in pairs], self.dtype) if self.aligned else None,
            Ragged.joined([pair.distributions for pair in pairs], self.dtype) if self.top_k else None,
        )

    def encode(self, rows: Sequence[Row], seed: Sequence[int]) -> list[EncodedPair | None]:
        """Encode rows; None stands for a pair that is left out (too long, or empty on one side).

        Sampling depends on nothing but `seed` and the rows. Raises UserError on alignment points that do not fit.
        """
        if not rows:
            return []
        aligned = self.aligned and len(rows[0]) > 2
        sides = [
            self._encode_side(side, [row[side] for row in rows], aligned, random.Random(repr((*seed, side))))
            for side in (0, 1)
        ]
        return [self._pair(row, src, trg) for row, src, trg in zip(rows, *sides, strict=True)]

    def _encode_side(
        self, side: int, texts: list[str], aligned: bool, rng: random.Random
    ) -> list[tuple[list[int], Offsets]]:
        """Ids, and character offsets of the pieces where alignments need them."""
        processor, sampler = self.processors[side], self.samplers[side]
        # One thread: the others are for training.
        if not aligned:
            best: list[list[int]] = processor.encode(texts, out_type=int, num_threads=1)
            return [(ids if sampler is None else sampler.sample(ids, rng), ()) for ids in best]
        encoded = processor.encode(texts, return_type="offset_mapping", num_threads=1)
        if sampler is None:
            return [(item["ids"], item["offsets"]) for item in encoded]
        return [sampler.sample_with_offsets(item["ids"], item["offsets"], rng) for item in encoded]

    def _pair(self, row: Row, src: tuple[list[int], Offsets], trg: tuple[list[int], Offsets]) -> EncodedPair | None:
        (src_ids, src_offsets), (trg_ids, trg_offsets) = src, trg
        if not src_ids or not trg_ids:
            return None
        limit = self.max_length
        if max(len(src_ids), len(trg_ids)) > limit:
            if not self.crop:
                return None
            src_ids, trg_ids = src_ids[:limit], trg_ids[:limit]
        points: list[int] = []
        if self.aligned and len(row) > 2:
            cells = align_pieces(row[2], row[0], row[1], src_offsets[:limit], trg_offsets[:limit])
            points = list(chain.from_iterable(cells))
        stored = self._stored(row[-1], len(trg_ids) + 1) if self.top_k else _NOTHING
        return EncodedPair([*src_ids, EOS_ID], [*trg_ids, EOS_ID], points, stored)

    def _stored(self, line: str, length: int) -> NDArray[np.int32]:
        numbers = parse_distributions(line, length, self.processors[1].get_piece_size())
        if numbers.shape[1] != self.top_k:
            raise UserError(f"the stored distributions are of {numbers.shape[1]} pieces, but top-k is {self.top_k}")
        return numbers.ravel()
