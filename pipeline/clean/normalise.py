"""One spelling for one text: NFC, single spaces, no control or invisible characters, no double-encoded UTF-8.

`normalise` is idempotent. The fast path answers for a sound line with a few scans that run in C; everything else is
done for the lines that need it.
"""

import re
import unicodedata

# What a byte of 0x80-0xBF looks like when UTF-8 was read as Windows-1252 or Latin-1.
_WINDOWS_1252 = {bytes([byte]).decode("cp1252", "ignore"): byte for byte in range(0x80, 0xA0)}
_BYTE_OF = {chr(byte): byte for byte in range(0x100)} | {char: byte for char, byte in _WINDOWS_1252.items() if char}
_TAIL = "\x80-\xbf" + "".join(char for char in _WINDOWS_1252 if char)

# A cheap first look, then the exact shapes. Two-byte leads other than Ã and Â, and three-byte leads, must come in runs:
# alone they are ordinary text, as in German „Ä“ or French «é».
_SUSPECT = re.compile(f"[ÂÃÄÅÎÏÐÑà-ï][{_TAIL}]")
_MOJIBAKE = re.compile(
    f"(?:Ã[{_TAIL}]|Â[\xa0-\xbf]|â[€\x80][{_TAIL}]|ï»¿|ï¿½)+"
    f"|(?:[ÄÅÎÏ][{_TAIL}]){{2,}}|(?:[ÐÑ][{_TAIL}]){{2,}}|(?:[à-ï][{_TAIL}]{{2}}){{2,}}"
    "|â€"
)
# U+FFFD, private use and non-characters: what was there is lost.
_LOST = re.compile("[\ufffd\ue000-\uf8ff\ufdd0-\ufdef\ufffe\uffff\U000f0000-\U0010ffff]")

_SPACES = "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
_SPACES += "\u2028\u2029\u202f\u205f\u3000"
_INVISIBLE = [
    0xAD,
    0x34F,
    0x61C,
    0x180E,
    0x200B,
    0x200E,
    0x200F,
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
    0xFEFF,
]
_INVISIBLE += [*range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080)]
_REPLACED: dict[int, str | None] = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), *_INVISIBLE])
_REPLACED |= {
    byte: char for char, byte in _WINDOWS_1252.items() if char
}  # C1 controls are Windows-1252 read as Latin-1
_REPLACED |= dict.fromkeys(map(ord, _SPACES), " ")
# Zero-width (non-)joiners carry meaning between letters of Persian or the Indic scripts and inside emoji, not
# elsewhere.
_STRAY_JOINER = re.compile(
    "(?<![^\x00-\u02ff\u2000-\u206f])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\u02ff\u2000-\u206f])"
)


def normalise(text: str) -> str:
    """The text in its one spelling. Mojibake is repaired where its bytes are sound UTF-8, and left elsewhere."""
    if text.isprintable() and "  " not in text and text[:1] != " " and text[-1:] != " ":
        if text.isascii():
            return text
        if unicodedata.is_normalized("NFC", text) and not _SUSPECT.search(text):
            return text
    while True:
        previous = text
        text = _MOJIBAKE.sub(_repair, text)
        text = _STRAY_JOINER.sub("", text.translate(_REPLACED))
        text = " ".join(unicodedata.normalize("NFC", text).split())
        if text == previous:
            return text


def is_damaged(text: str) -> bool:
    """Whether a normalised text still holds characters that were lost in a conversion, or mojibake beyond repair."""
    if text.isascii():
        return False
    return bool(_LOST.search(text) or (_SUSPECT.search(text) and _MOJIBAKE.search(text)))


def _repair(match: re.Match[str]) -> str:
    try:
        return bytes(_BYTE_OF[char] for char in match.group()).decode("utf-8")
    except UnicodeDecodeError:
        return match.group()
