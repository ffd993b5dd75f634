"""What cleaning needs to know of a language: its scripts, its spaces, its name in the identifier."""

import re
import unicodedata
from functools import cache

# Written without spaces between words: words are counted as characters (see pipeline.common.words).
UNSPACED_LANGUAGES = frozenset({"zh", "yue", "ja", "th", "lo", "km", "my", "bo", "dz"})

# Characters of a language's text, as a share of the characters of its English translation, where far from one.
CHARACTERS_PER_ENGLISH = {"zh": 0.3, "yue": 0.3, "ja": 0.45, "ko": 0.5, "he": 0.75, "ar": 0.85}

# First words of the Unicode names of a language's letters. Latin is always allowed beside them (names, code, units).
# A language that is not listed may use any letter.
_SCRIPTS = {
    "LATIN": "af az bs ca cs cy da de en eo es et eu fi fo fr fy ga gl ha hr ht hu id ig is it jv la lb lt lv mg mi"
    " ms mt nb nl nn no oc pl pt ro rw sk sl sm sn so sq st su sv sw tk tl tr uz vi xh yo zu",
    "CYRILLIC": "ru uk be bg mk sr ky tg tt ba cv kk mn az uz sr",
    "GREEK": "el",
    "ARABIC": "ar fa ur ps ckb sd ug",
    "HEBREW": "he yi",
    "DEVANAGARI": "hi mr ne sa",
    "BENGALI": "bn as",
    "GURMUKHI": "pa",
    "GUJARATI": "gu",
    "ORIYA": "or",
    "TAMIL": "ta",
    "TELUGU": "te",
    "KANNADA": "kn",
    "MALAYALAM": "ml",
    "SINHALA": "si",
    "THAI": "th",
    "LAO": "lo",
    "KHMER": "km",
    "MYANMAR": "my",
    "TIBETAN": "bo dz",
    "ETHIOPIC": "am ti",
    "GEORGIAN": "ka",
    "ARMENIAN": "hy",
    "HANGUL": "ko",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "CJK": "zh yue ja ko",
}
_ALWAYS = ("LATIN", "FULLWIDTH LATIN", "COMBINING", "MODIFIER")

# ISO 639-1 -> the identifier's ISO 639-3 codes, any of which is right.
_IDENTIFIER_CODES = """
ab abk|af afr|am amh|ar ara|as asm|az aze|ba bak|be bel|bg bul|bn ben|bo bod|br bre|bs hbs|ca cat|ce che|co cos|cs ces
|cv chv|cy cym|da dan|de deu|dv div|ee ewe|el ell|en eng|eo epo|es spa|et est|eu eus|fa pes|fi fin|fj fij|fo fao|fr fra
|fy fry|ga gle|gd gla|gl glg|gn grn|gu guj|gv glv|he heb|hi hin|hr hbs|ht hat|hu hun|hy hye|id msa|ig ibo|io ido|is isl
|it ita|iu iku|ja jpn|ka kat|kk kaz|kl kal|km khm|kn kan|ko kor|ku kmr|ckb ckb|kw cor|ky kir|la lat|lb ltz|lg lug|ln lin
|lo lao|lt lit|lv lav|mg mlg|mi mri|mk mkd|ml mal|mn mon|mr mar|ms msa|mt mlt|my mya|nb nob|ne nep|nl nld|nn nno
|no nob nno|nv nav|oc oci|om gaz|or ori|os oss|pa pan|pl pol|ps pbt|pt por|qu que|rm roh|ro ron|ru rus|sc srd|sd snd
|se sme|sg sag|sh hbs|si sin|sk slk|sl slv|sn sna|so som|sq sqi|sr hbs|st sot|sv swe|sw swa|ta tam|te tel|tg tgk|th tha
|ti tir|tk tuk|tl tgl|tr tur|ts tso|tt tat|tw twi|ug uig|uk ukr|ur urd|uz uzn|vi vie|vo vol|wa wln|yi yid|yo yor|yue cmn
|zh cmn|zu zul
"""
_CODES = {entry.split()[0]: tuple(entry.split()[1:]) for entry in _IDENTIFIER_CODES.replace("\n", "").split("|")}


def base_language(language: str) -> str:
    """The language of a tag without script and region: `pt` of `pt-BR`, `zh` of `zh_Hant`."""
    return re.split("[-_]", language.lower())[0]


def is_unspaced(language: str) -> bool:
    """Whether the language is written without spaces between words."""
    return base_language(language) in UNSPACED_LANGUAGES


def is_latin(language: str) -> bool:
    """Whether the language is usually written in Latin script; also so for one that is not listed."""
    scripts = [script for script, languages in _SCRIPTS.items() if base_language(language) in languages.split()]
    return not scripts or "LATIN" in scripts


def identifier_codes(language: str) -> tuple[str, ...]:
    """ISO 639-3 codes, any of which the identifier may rightly give; three-letter codes stand for themselves."""
    base = base_language(language)
    return _CODES.get(base, (base,))


def character_weight(language: str) -> float:
    """How many English characters one character of the language stands for, for comparing lengths."""
    return 1 / CHARACTERS_PER_ENGLISH.get(base_language(language), 1.0)


@cache
def not_letters(language: str) -> re.Pattern[str]:
    """Matches runs of what is neither a space nor a letter (or a letter's mark) of the language's scripts or Latin.

    Only the Basic Multilingual Plane counts, because Python matches a character class by one table look-up only there.
    """
    base = base_language(language)
    scripts = tuple(script for script, languages in _SCRIPTS.items() if base in languages.split())
    allowed = (*_ALWAYS, *scripts, "IDEOGRAPHIC", "HALFWIDTH", "KATAKANA-HIRAGANA") if scripts else ("",)
    letters = [
        code
        for code in range(0x80, 0xFFFE)
        if unicodedata.category(char := chr(code))[0] in "LM" and unicodedata.name(char, "").startswith(allowed)
    ]
    return re.compile(f"[^ A-Za-z{_ranges(letters)}]+")


def _ranges(codes: list[int]) -> str:
    """A sorted list of code points as the inside of a character class."""
    ranges: list[list[int]] = []
    for code in codes:
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"\\u{first:04x}-\\u{last:04x}" for first, last in ranges)
