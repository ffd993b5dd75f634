"""The script of a text and what can be done with it, from the names and properties of Unicode's characters."""

import itertools
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

# Characters stand for words or for whole syllables: one key more or less makes another word, not a misspelt one.
_NOT_PHONEMIC = frozenset({"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "YI", "TANGUT", "NUSHU"})
_ENOUGH_LETTERS = 100_000


@dataclass(frozen=True)
class Script:
    """A script by the first word of its characters' names (LATIN, CYRILLIC, CJK, …; UNKNOWN without letters).

    `bicameral` has upper and lower case; `phonemic` writes sounds: alphabets, abjads, abugidas and syllabaries, but
    not those of Japanese, whose text is Han characters as well, and not Hangul.
    """

    name: str
    bicameral: bool
    phonemic: bool


def script_of(texts: Iterable[str]) -> Script:
    """The script of most letters in some text; of a long one, as many letters as decide it are read."""
    letters = (character for text in texts for character in text if character.isalpha())
    counts = Counter(itertools.islice(letters, _ENOUGH_LETTERS))
    scripts: Counter[str] = Counter()
    for letter, count in counts.items():
        scripts[unicodedata.name(letter, "UNKNOWN").split()[0]] += count
    if not scripts:
        return Script("UNKNOWN", bicameral=False, phonemic=False)
    # A tie, as likely as in the shortest text only, is settled by name.
    name = max(sorted(scripts), key=scripts.__getitem__)
    cased = sum(
        count
        for letter, count in counts.items()
        if unicodedata.name(letter, "UNKNOWN").split()[0] == name and letter.lower() != letter.upper()
    )
    return Script(name, bicameral=2 * cased > scripts[name], phonemic=name not in _NOT_PHONEMIC)
