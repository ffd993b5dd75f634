"""Splitting text into words: for alignments and for counting, the same on both sides and everywhere.

Runs of letters, marks and digits are words; scripts written without spaces give one word per character; every other
visible character is a word of its own. No text is changed, so word positions can be mapped to characters.
"""

import itertools
import re
import unicodedata


def _ranges_of_marks() -> str:
    """The combining marks (vowel signs, accents) as the inside of a character class: `re` has no name for them."""
    marks = [code for code in range(0x300, 0x20000) if unicodedata.category(chr(code))[0] == "M"]
    runs = itertools.groupby(enumerate(marks), lambda item: item[1] - item[0])
    ends = ((first := next(run)[1], max([first, *(code for _, code in run)])) for _, run in runs)
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ends)


# Scripts without spaces between words: Han, Hiragana, Katakana, Thai, Lao, Khmer, Myanmar.
UNSPACED = (
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\U00020000-\U0002ffff"
)
_MARKS = _ranges_of_marks()
_RUN = rf"[^\W{UNSPACED}]+(?:[{_MARKS}]+[^\W{UNSPACED}]*)*"
_WORD = re.compile(rf"{_RUN}(?:['’]{_RUN})*|[{UNSPACED}][{_MARKS}]*|\S")


def split_words(text: str) -> list[str]:
    """The words of a sentence, in order."""
    return _WORD.findall(text)


def word_spans(text: str) -> list[tuple[int, int]]:
    """Character offsets (start, end) of the words of a sentence; as many as `split_words` gives."""
    return [match.span() for match in _WORD.finditer(text)]
