"""Which Unicode normalisation a vocabulary applies to text before it is split into pieces.

SentencePiece brings rules for the NFKC family. Canonical composition (NFC), which keeps ligatures, full-width letters
and superscripts apart from their plain forms, is generated here as a SentencePiece rule table.
"""

import difflib
import itertools
import sys
import unicodedata
from collections.abc import Iterator

from pipeline.common.errors import UserError

BUILT_IN_RULES = ("nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity")
NORM_RULES = (*BUILT_IN_RULES, "nfc")


def check_norm_rule(name: str) -> str:
    """Return the name of a known rule. Raises UserError, with the nearest known name, otherwise."""
    if name in NORM_RULES:
        return name
    nearest = difflib.get_close_matches(name.lower(), NORM_RULES, n=1, cutoff=0.5)
    hint = f", did you mean {nearest[0]!r}?" if nearest else ""
    raise UserError(f"unknown normalisation rule {name!r}: known are {', '.join(NORM_RULES)}{hint}")


def nfc_table() -> str:
    """NFC as SentencePiece's rule table: `code points <tab> code points`, in hexadecimal, one rule per line.

    Each character that NFC makes or takes apart gets a rule for every canonically equivalent spelling of it: fully or
    partly decomposed, its marks in any order.
    """
    rules: dict[str, str] = {}
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if unicodedata.normalize("NFD", character) != character:
            composed = unicodedata.normalize("NFC", character)
            for spelling in _spellings(character):
                if spelling != composed:
                    rules[spelling] = composed
    lines = (f"{_hexadecimal(spelling)}\t{_hexadecimal(composed)}\n" for spelling, composed in sorted(rules.items()))
    return "".join(lines)


def _spellings(character: str) -> Iterator[str]:
    """The character itself and every string that is canonically equivalent to it."""
    yield character
    base, *marks = list(unicodedata.normalize("NFD", character))
    wanted = unicodedata.normalize("NFC", character)
    for order in set(itertools.permutations(marks)):
        decomposed = base + "".join(order)
        if unicodedata.normalize("NFC", decomposed) != wanted:
            continue
        for length in range(1, len(decomposed) + 1):
            yield unicodedata.normalize("NFC", decomposed[:length]) + decomposed[length:]


def _hexadecimal(text: str) -> str:
    return " ".join(f"{ord(character):X}" for character in text)
