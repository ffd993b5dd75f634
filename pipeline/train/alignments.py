"""Word alignments turned into alignments of SentencePiece pieces."""

from collections.abc import Sequence

from pipeline.common.alignments import parse_points
from pipeline.common.errors import UserError
from pipeline.common.words import word_spans

Offsets = Sequence[tuple[int, int]]


def align_pieces(
    points: str, src_text: str, trg_text: str, src_offsets: Offsets, trg_offsets: Offsets
) -> list[tuple[int, int]]:
    """Alignment points (source piece, target piece) in order, the ends of the sentences aligned with each other.

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
    return sorted(cells)


def pieces_of_words(text: str, offsets: Offsets) -> list[range]:
    """For each word of a text the pieces that hold a part of it.

    White space belongs to the word after it, so that a piece of nothing but "▁" goes with the word that it begins.
    Pieces of no width (the first bytes of a character, the first letters of a ligature) belong where they stand.
    """
    ends = [end for _, end in word_spans(text)]
    count = len(ends)
    first: list[int] = []  # of each word
    behind: list[int] = []  # the last one
    word = 0
    # Both lists ascend, since pieces and words stand in the order of the text.
    for piece, (begin, end) in enumerate(offsets):
        while word < count and ends[word] <= begin:
            behind.append(piece)
            word += 1
        last = word
        while last < count and ends[last] < end:
            last += 1
        while len(first) <= last:
            first.append(piece)
    first += [len(offsets)] * (count - len(first))
    behind += [len(offsets)] * (count - len(behind))
    return [range(*ends_of_word) for ends_of_word in zip(first, behind, strict=False)]
