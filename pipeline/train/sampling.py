"""Subword regularisation that can be repeated: segmentations drawn at random, from a seed."""

import functools
import math
import random
from bisect import bisect
from dataclasses import dataclass
from itertools import accumulate

import sentencepiece

_NBEST = 64
_LEAST_SHARE = 1e-3
_CACHED_WORDS = 1 << 16
_SPACE = "▁"

Offset = tuple[int, int]


@dataclass(frozen=True)
class _Alternatives:
    """Segmentations of a word with their cumulative probabilities; of each the ids and the lengths of its pieces."""

    cumulative: list[float]
    segmentations: list[tuple[tuple[int, ...], tuple[int, ...]]]


class SubwordSampler:
    """Draws segmentations in proportion to P(segmentation)^alpha (Kudo 2018, "Subword regularization").

    SentencePiece's own sampling cannot be repeated: its random generator differs from process to process whatever the
    seed. Since pieces do not cross spaces, the words of a sentence are segmented independently of each other;
    so each word is drawn by itself from its 64 best segmentations, less those rarer than one in a thousand.
    Words spelt in bytes or unknown keep the best segmentation.
    """

    def __init__(self, processor: sentencepiece.SentencePieceProcessor, alpha: float) -> None:
        self.processor, self.alpha = processor, alpha
        numbers = range(processor.get_piece_size())
        self._pieces = [processor.id_to_piece(number) for number in numbers]
        self._scores = [processor.get_score(number) for number in numbers]
        self._fixed = {
            number
            for number in numbers
            if processor.is_byte(number) or processor.is_unknown(number) or processor.is_control(number)
        }
        self._alternatives = functools.lru_cache(_CACHED_WORDS)(self._find_alternatives)

    def __reduce__(self) -> tuple[type["SubwordSampler"], tuple[sentencepiece.SentencePieceProcessor, float]]:
        return SubwordSampler, (self.processor, self.alpha)

    def sample(
        self, pieces: list[str], ids: list[int], offsets: list[Offset], rng: random.Random
    ) -> tuple[list[int], list[Offset]]:
        """From the best segmentation of a sentence (pieces, ids, character offsets) to a random one (ids, offsets)."""
        starts = [index for index, piece in enumerate(pieces) if index == 0 or piece.startswith(_SPACE)]
        new_ids: list[int] = []
        new_offsets: list[Offset] = []
        for start, end in zip(starts, [*starts[1:], len(pieces)], strict=True):
            alternatives = None
            if self._fixed.isdisjoint(ids[start:end]):
                alternatives = self._alternatives("".join(pieces[start:end]))
            if alternatives is None:
                new_ids += ids[start:end]
                new_offsets += offsets[start:end]
                continue
            chosen, lengths = alternatives.segmentations[bisect(alternatives.cumulative, rng.random())]
            new_ids += chosen
            characters = _characters(pieces[start:end], offsets[start:end])
            ends = list(accumulate(lengths))
            new_offsets += [
                (characters[last - length][0], characters[last - 1][1])
                for length, last in zip(lengths, ends, strict=True)
            ]
        return new_ids, new_offsets

    def _find_alternatives(self, word: str) -> _Alternatives | None:
        """Segmentations of a word that begins with a space mark, or None when there is only one to choose."""
        text = word[1:]
        if not word.startswith(_SPACE) or not text or _SPACE in text:
            return None
        found: list[list[int]] = self.processor.nbest_encode(text, nbest_size=_NBEST, out_type=int)
        scores = [sum(self._scores[piece] for piece in ids) for ids in found]
        weights = [math.exp(self.alpha * (score - scores[0])) for score in scores]
        least = _LEAST_SHARE * sum(weights)
        segmentations, kept = [], []
        for ids, weight in zip(found, weights, strict=True):
            if weight < least:
                break
            pieces = [self._pieces[piece] for piece in ids]
            # A text that is normalised once more may come out differently: then it is not this word.
            if "".join(pieces) == word and self._fixed.isdisjoint(ids):
                segmentations.append((tuple(ids), tuple(map(len, pieces))))
                kept.append(weight)
        if len(segmentations) < 2:
            return None
        total = sum(kept)
        cumulative = [share / total for share in accumulate(kept)]
        return _Alternatives(cumulative[:-1], segmentations)


def _characters(pieces: list[str], offsets: list[Offset]) -> list[Offset]:
    """Where each character of some pieces stands in the text."""
    characters: list[Offset] = []
    for piece, (begin, end) in zip(pieces, offsets, strict=True):
        length = len(piece)
        if (
            piece.startswith(_SPACE) and length == end - begin + 1
        ):  # the space mark before a sentence is not in the text
            characters.append((begin, begin))
            length -= 1
        if length == end - begin:
            characters += [(place, place + 1) for place in range(begin, end)]
        else:  # normalised into more or fewer characters: each of them comes from all
            characters += [(begin, end)] * length
    return characters
