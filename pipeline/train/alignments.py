"""Word alignments turned into alignments of SentencePiece pieces."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.common.errors import UserError
from pipeline.common.words import word_spans

Offsets = Sequence[tuple[int, int]]


def align_pieces(
    points: str, src_text: str, trg_text: str, src_offsets: Offsets, trg_offsets: Offsets
) -> NDArray[np.int32]:
    """Alignment points [N, 2] of (source piece, target piece), the ends of the sentences aligned with each other.

    `points` is Pharaoh's `i-j …` over the words of the texts (`split_words`); offsets are (begin, end) of each piece in
    characters of the text, without the end of sentence. Two pieces are aligned when words that they belong to are.
    Raises UserError when a point is malformed or lies outside a sentence.
    """
    src_words, trg_words = pieces_of_words(src_text, src_offsets), pieces_of_words(trg_text, trg_offsets)
    cells = {(len(src_offsets), len(trg_offsets))}
    for i, j in parse_points(points):
        if i >= len(src_words) or j >= len(trg_words):
            raise UserError(
                f"the alignment point {i}-{j} lies outside its sentences of {len(src_words)} and {len(trg_words)} "
                f"words ({src_text[:80]!r}): the alignments belong to another corpus"
            )
        cells.update((a, b) for a in src_words[i] for b in trg_words[j])
    return np.array(sorted(cells), dtype=np.int32)


def parse_points(points: str) -> list[tuple[int, int]]:
    """Word positions of Pharaoh's `i-j i-j …`. Raises UserError when a point is malformed."""
    parsed = []
    for point in points.split():
        src, dash, trg = point.partition("-")
        if not (dash and src.isdecimal() and trg.isdecimal()):
            raise UserError(f"{point!r} is not an alignment point: points are two word positions such as 0-1")
        parsed.append((int(src), int(trg)))
    return parsed


def pieces_of_words(text: str, offsets: Offsets) -> list[range]:
    """For each word of a text the pieces that hold a part of it.

    White space belongs to the word after it, so that a piece of nothing but "▁" goes with the word that it begins.
    Pieces of no width (the first bytes of a character, the first letters of a ligature) belong where they stand.
    """
    ends = [end for _, end in word_spans(text)]
    # Both lists ascend, since pieces and words stand in the order of the text.
    first = [bisect_right(ends, begin) for begin, _ in offsets]
    last = [bisect_right(ends, max(begin, end - 1)) for begin, end in offsets]
    return [range(bisect_left(last, word), bisect_right(first, word)) for word in range(len(ends))]
