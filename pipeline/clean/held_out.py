"""Held-out sets: development and test sentences that must not stand in training data."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from pipeline.common.files import read_lines


def same_sentence(text: str) -> str:
    """What two lines have in common when one would leak the other: the text in NFC, casefolded, with single spaces."""
    folded = unicodedata.normalize("NFC", text).casefold()
    return " ".join(unicodedata.normalize("NFC", folded).split())


class HeldOut:
    """One side of some held-out sets, and how many lines of other corpora each of them hit."""

    def __init__(self, sets: Sequence[tuple[str, Path]]) -> None:
        """`sets` are (name, file of that side) pairs; their lines are held in memory. Empty lines hold nothing out."""
        self._sets: dict[str, tuple[str, ...]] = {}
        for name, path in sets:
            for line in read_lines(path):
                key = same_sentence(line)
                names = self._sets.get(key, ())
                if key and name not in names:
                    self._sets[key] = (*names, name)

    def find(self, text: str) -> tuple[str, ...]:
        """The names of the held-out sets that a line stands in."""
        return self._sets.get(same_sentence(text), ()) if self._sets else ()
