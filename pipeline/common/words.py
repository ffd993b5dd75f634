"""Splitting text into words: for alignments and for counting, the same on both sides and everywhere.

Runs of letters, marks and digits are words; scripts written without spaces give one word per character; every other
visible character is a word of its own. No text is changed, so word positions can be mapped to characters.
"""

import re

# Scripts without spaces between words: Han, Hiragana, Katakana, Thai, Lao, Khmer, Myanmar.
UNSPACED = (
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\U00020000-\U0002ffff"
)
_WORD = re.compile(rf"[{UNSPACED}]|(?:(?![{UNSPACED}])\w)+(?:['’](?:(?![{UNSPACED}])\w)+)*|[^\w\s]")


def split_words(text: str) -> list[str]:
    """The words of a sentence, in order."""
    return _WORD.findall(text)


def word_spans(text: str) -> list[tuple[int, int]]:
    """Character offsets (start, end) of the words of a sentence; as many as `split_words` gives."""
    return [match.span() for match in _WORD.finditer(text)]
