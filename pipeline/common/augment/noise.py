"""Words of random characters: a model that copies them learns to copy names, symbols and emoji that it never saw."""

import functools
import random
import unicodedata

# As OpusTrainer draws them: one block for all words of a call, so that they look like words of one script.
_BLOCKS = (
    (0x0021, 0x007E),  # Basic Latin
    (0x00A1, 0x00FF),  # Latin-1 Supplement
    (0x0370, 0x03FF),  # Greek and Coptic
    (0x0400, 0x04FF),  # Cyrillic
    (0x0531, 0x058F),  # Armenian
    (0x05D0, 0x05F4),  # Hebrew
    (0x0600, 0x06FF),  # Arabic
    (0x0900, 0x097F),  # Devanagari
    (0x0980, 0x09FF),  # Bengali
    (0x0A80, 0x0AFF),  # Gujarati
    (0x0E00, 0x0E7F),  # Thai
    (0x1000, 0x109F),  # Myanmar
    (0x10A0, 0x10FF),  # Georgian
    (0x1780, 0x17FF),  # Khmer
    (0x3041, 0x309F),  # Hiragana
    (0x30A0, 0x30FF),  # Katakana
    (0x4E00, 0x9FFF),  # CJK Unified Ideographs
    (0xAC00, 0xD7A3),  # Hangul Syllables
    (0x1F600, 0x1F64F),  # Emoticons
)


def random_words(rng: random.Random, shortest: int, longest: int, most: int) -> list[str]:
    """One to `most` words of one length between `shortest` and `longest`.

    Letters, digits, punctuation and symbols only: a combining mark would join the word before it.
    """
    characters = _block(rng.randrange(len(_BLOCKS)))
    length = rng.randint(shortest, longest)
    return ["".join(rng.choices(characters, k=length)) for _ in range(rng.randint(1, most))]


@functools.cache
def _block(number: int) -> str:
    first, last = _BLOCKS[number]
    return "".join(
        chr(code) for code in range(first, last + 1) if unicodedata.category(chr(code))[0] in ("L", "N", "P", "S")
    )
