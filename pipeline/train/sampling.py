"""Subword regularisation that can be repeated: segmentations drawn at random, from a seed."""

import functools
import math
import random
from array import array
from bisect import bisect
from collections.abc import Sequence

import sentencepiece

_CACHED_WORDS = 1 << 16
_SPACE = "▁"

Offset = tuple[int, int]
Choices = tuple[list[float], list[tuple[int, int]]]


class _Word:
    """A word and the weights [length + 1] of all segmentations of its beginnings of each length.

    `choices` are found when they are first needed: for the end of a beginning, the cumulative weights of the pieces
    that may be its last one, and of each piece where it starts and its id.
    """

    __slots__ = ("choices", "scale", "text", "weights")

    def __init__(self, text: str, scale: float) -> None:
        self.text, self.scale = text, scale
        self.weights = array("d", [1.0] + [0.0] * len(text))
        self.choices: dict[int, Choices] = {}


class SubwordSampler:
    """Draws segmentations in proportion to P(segmentation)^alpha (Kudo 2018, "Subword regularization").

    SentencePiece's own sampling cannot be repeated: its random generator differs from process to process whatever the
    seed. Since pieces do not cross spaces, the words of a sentence are segmented independently of each other; each is
    drawn by itself, from all its segmentations, by forward filtering and backward sampling over its lattice.
    Words spelt in bytes, unknown, or user-defined keep the best segmentation.
    """

    def __init__(self, processor: sentencepiece.SentencePieceProcessor, alpha: float) -> None:
        self.processor, self.alpha = processor, alpha
        numbers = range(processor.get_piece_size())
        self._pieces = [processor.id_to_piece(number) for number in numbers]
        self._scores = [processor.get_score(number) for number in numbers]
        self._begins = [piece.startswith(_SPACE) for piece in self._pieces]
        # Weights of pieces, and of what is only the beginning of a piece 0: a word is walked along these.
        self._weights: dict[str, float] = {}
        self._drawn: dict[str, tuple[int, float]] = {}
        self._fixed = set()
        for number, piece in enumerate(self._pieces):
            # Pieces with a meaning of their own have no probability; their score is 0.
            if self._scores[number] == 0 or any(
                special(number) for special in (processor.is_byte, processor.is_unknown, processor.is_control)
            ):
                self._fixed.add(number)
                continue
            for length in range(1, len(piece)):
                self._weights.setdefault(piece[:length], 0.0)
            self._weights[piece] = math.exp(alpha * self._scores[number])
            self._drawn[piece] = number, self._weights[piece]
        self._longest = max(map(len, self._drawn), default=0)
        self._word = functools.lru_cache(_CACHED_WORDS)(self._weigh)

    def __reduce__(self) -> tuple[type["SubwordSampler"], tuple[sentencepiece.SentencePieceProcessor, float]]:
        return SubwordSampler, (self.processor, self.alpha)

    def sample(self, ids: Sequence[int], rng: random.Random) -> list[int]:
        """From the ids of a sentence's best segmentation to those of a random one."""
        sampled: list[int] = []
        for start, end in self._words(ids):
            word = self._word(tuple(ids[start:end]))
            sampled += ids[start:end] if word is None else self._draw(word, rng)[0]
        return sampled

    def sample_with_offsets(
        self, ids: Sequence[int], offsets: Sequence[Offset], rng: random.Random
    ) -> tuple[list[int], list[Offset]]:
        """The same, together with the offsets of the pieces in characters of the text."""
        sampled: list[int] = []
        new_offsets: list[Offset] = []
        for start, end in self._words(ids):
            best = tuple(ids[start:end])
            word = self._word(best)
            if word is None:
                sampled += best
                new_offsets += offsets[start:end]
                continue
            chosen, ends = self._draw(word, rng)
            sampled += chosen
            if len(chosen) == len(best) and tuple(chosen) == best:
                new_offsets += offsets[start:end]
                continue
            new_offsets += self._offsets(best, offsets[start:end], ends)
        return sampled, new_offsets

    def _offsets(self, best: Sequence[int], offsets: Sequence[Offset], ends: Sequence[int]) -> list[Offset]:
        """Of pieces that end at these characters of a word, by the offsets of its best segmentation."""
        starts = [0, *ends[:-1]]
        begin = offsets[0][0]
        lengths = [end - start for start, end in offsets]
        if lengths == [len(self._pieces[number]) for number in best]:  # the text stands as it was
            return [(begin + first, begin + last) for first, last in zip(starts, ends, strict=True)]
        characters = _characters([self._pieces[number] for number in best], offsets)
        return [(characters[first][0], characters[last - 1][1]) for first, last in zip(starts, ends, strict=True)]

    def _words(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        """Where the pieces of each word begin and end."""
        begins = self._begins
        starts = [place for place, number in enumerate(ids) if begins[number] or place == 0]
        return list(zip(starts, [*starts[1:], len(ids)], strict=True))

    def _weigh(self, best: tuple[int, ...]) -> _Word | None:
        """The word with this best segmentation, or None when there is no other to draw."""
        if not self._fixed.isdisjoint(best):
            return None
        text = "".join([self._pieces[number] for number in best])
        # The best segmentation weighs 1 in all, so that weights of long words stay numbers.
        word = _Word(text, math.exp(-self.alpha * sum([self._scores[number] for number in best]) / len(text)))
        weights, find, found = word.weights, self._weights.get, 0
        for start in range(len(text)):
            weight = weights[start]
            if not weight:
                continue
            for end in range(start + 1, len(text) + 1):
                share = find(text[start:end])
                if share is None:
                    break
                weight *= word.scale
                if share:
                    weights[end] += weight * share
                    found += 1
        return word if found > len(best) else None

    def _draw(self, word: _Word, rng: random.Random) -> tuple[list[int], list[int]]:
        """Ids of a random segmentation, and where its pieces end, in characters of the word."""
        ids, ends = [], []
        end = len(word.text)
        while end:
            choices = word.choices.get(end)
            if choices is None:
                choices = word.choices[end] = self._choices(word, end)
            cumulative, pieces = choices
            ends.append(end)
            if len(pieces) == 1:
                end, number = pieces[0]
            else:
                # Rounding may give the total itself, behind the last one.
                end, number = pieces[min(bisect(cumulative, rng.random() * cumulative[-1]), len(pieces) - 1)]
            ids.append(number)
        return ids[::-1], ends[::-1]

    def _choices(self, word: _Word, end: int) -> Choices:
        total, cumulative, pieces = 0.0, [], []
        for start in range(max(0, end - self._longest), end):
            if (piece := self._drawn.get(word.text[start:end])) and word.weights[start]:
                number, share = piece
                total += word.weights[start] * share * word.scale ** (end - start)
                cumulative.append(total)
                pieces.append((start, number))
        return cumulative, pieces


def _characters(pieces: Sequence[str], offsets: Sequence[Offset]) -> list[Offset]:
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
