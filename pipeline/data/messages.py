"""From a catalogue's message to plain sentences, the same number on each side.

`sentences` takes one message in one or more languages (a pair for parallel text, one for monolingual text) and returns
rows of plain text, or the reason why there are none. What it does, in order:

1. Markup: tags must be the same on all sides. Inline tags go, block tags and line breaks separate sentences.
2. Paragraphs and list items become rows of their own where all sides have as many; soft line breaks become spaces.
3. Keyboard accelerators go (`&File`, `_File`, `E&xit`, `文件(&F)`); entities are unescaped; white space is squeezed.
4. Placeholders (`%(name)s`, `%s`, `{name}`, `${name}`, `{{ name }}`) stay as they are and must be the same
   on all sides.
"""

import html
import re
from collections import Counter
from collections.abc import Iterable

# Reasons why a message, or a part of it, is left out.
REASONS = ("tags", "paragraphs", "empty", "placeholders")

_PLACEHOLDER = re.compile(
    r"""
      \{%.*?%\} | \$?\{\{?[^{}]*\}\}?              # {% tag %}  {name}  {}  ${name}  {{ name }}
    | %% | %\d{1,2}(?!\d|\$|[.]?\d*[A-Za-z])       # %%  %1 of Qt
    | %(?:\([^()]*\)|\d+\$)?[#0+-]*\d*(?:\.\d+)?   # %(name)s  %1$s  %5.2f: no blank between, as in "50 % der Fälle"
      (?:hh?|ll?|[Lzjt])?[A-Za-z]
    | \$[A-Za-z_]\w*                               # $name
    """,
    re.VERBOSE,
)

_TAG = re.compile(r"<!--.*?-->|<(?P<close>/?)(?P<name>[A-Za-z][\w:-]*|\d+)(?P<attributes>(?:\s[^<>]*)?)/?>", re.DOTALL)
# HTML's elements: those inside a line of text, and those that begin a new one.
_INLINE_NAMES = """
a abbr acronym b bdi bdo big button cite code data del dfn em font i img input ins kbd label mark q s samp small
span strike strong sub sup svg time tt u var wbr
"""
_BLOCK_NAMES = """
address article aside blockquote body br center dd details div dl dt fieldset figure footer form h1 h2 h3 h4 h5 h6
head header hr html legend li main nav ol option p pre section select summary table tbody td tfoot th thead title
tr ul
"""
_INLINE, _BLOCK = frozenset(_INLINE_NAMES.split()), frozenset(_BLOCK_NAMES.split())
_BREAK = "\n\n"

_PARAGRAPH_END = re.compile(r"\n[^\S\n]*\n\s*")
_LIST_ITEM = re.compile(r"\n(?=\s*(?:[-*•–·]|\d{1,2}[.)])\s)")
_SENTENCE_END = re.compile(r"[.!?:;…。！？：][\"'”’»)]*$")
_BULLET = re.compile(r"^(?:[-*•–·]\s+)")

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_SHORTCUT_IN_BRACKETS = re.compile(r"\s?[(（][&_]\w[)）]")
_AMPERSAND = re.compile(rf"{_ENTITY.pattern}|(?P<double>&&)|(?P<mark>&)(?=\w)")
_LETTER = re.compile(r"[^\W\d_]")


def sentences(sides: tuple[str, ...]) -> tuple[list[tuple[str, ...]], Counter[str]]:
    """Rows of plain text from one message, and how many messages or parts of it were left out for which reason.

    A row has one text per side: not empty, without line ends, tabs and doubled blanks, with the same placeholders.
    """
    texts = [side.replace("\r\n", "\n").replace("\r", "\n") for side in sides]
    markup = [_markup(text) for text in texts]
    if any(tags != markup[0][1] for _, tags in markup):
        return [], Counter(["tags"])
    split = _split([text for text, _ in markup])
    if split is None:
        return [], Counter(["paragraphs"])
    rows: list[tuple[str, ...]] = []
    dropped: Counter[str] = Counter()
    for parts in zip(*split, strict=True):
        row = tuple(_squeeze(_unescape(text)) for text in _without_accelerators(parts))
        fault = _fault(row)
        if fault:
            dropped[fault] += 1
        else:
            rows.append(row)
    if not rows and not dropped:
        dropped["empty"] += 1
    return rows, dropped


def placeholders(text: str) -> Counter[str]:
    """The placeholders of a text, each with how often it stands there."""
    return Counter(match.group() for match in _PLACEHOLDER.finditer(text))


def _fault(row: tuple[str, ...]) -> str | None:
    if any(not _LETTER.search(_PLACEHOLDER.sub("", text)) for text in row):
        return "empty"
    if any(placeholders(text) != placeholders(row[0]) for text in row[1:]):
        return "placeholders"
    return None


def _markup(text: str) -> tuple[str, Counter[str]]:
    """The text with tags removed or turned into breaks, and the tags by name."""
    if "<" not in text:
        return text, Counter()
    tags: Counter[str] = Counter()
    closed = {match["name"] for match in _TAG.finditer(text) if match["close"]}

    def replace(match: re.Match[str]) -> str:
        name = match["name"]
        if name is None:  # a comment
            return ""
        known = name.lower() in _INLINE or name.lower() in _BLOCK
        # <filename> is text; <name>…</name>, <Name/> and <Name attribute="…"> are somebody's own elements.
        if not known and name not in closed and "=" not in match["attributes"] and not match[0].endswith("/>"):
            return match[0]
        tags[match["close"] + name.lower()] += 1
        return _BREAK if name.lower() in _BLOCK else ""

    return _TAG.sub(replace, text), tags


def _split(texts: list[str]) -> list[list[str]] | None:
    """The parts of each side, as many on every side; None when the sides have different numbers of paragraphs."""
    paragraphs = [_paragraphs(text) for text in texts]
    if len({len(parts) for parts in paragraphs}) > 1:
        return None
    split: list[list[str]] = [[] for _ in texts]
    for parts in zip(*paragraphs, strict=True):
        lines = [[line for line in part.split("\n") if line.strip()] for part in parts]
        # Lines that all end as sentences do are sentences; others were broken to fit a width.
        whole = all(_SENTENCE_END.search(line.rstrip()) for side in lines for line in side[:-1])
        if whole and len({len(side) for side in lines}) == 1:
            for side, kept in zip(lines, split, strict=True):
                kept.extend(side)
        else:
            for part, kept in zip(parts, split, strict=True):
                kept.append(part)
    return split


def _paragraphs(text: str) -> list[str]:
    parts = (part for block in _PARAGRAPH_END.split(text) for part in _LIST_ITEM.split(block))
    return [_BULLET.sub("", part.strip()) for part in parts if part.strip()]


def _without_accelerators(parts: tuple[str, ...]) -> Iterable[str]:
    parts = tuple(_SHORTCUT_IN_BRACKETS.sub("", part) for part in parts)
    words = [set(part.split()) for part in parts]
    for number, part in enumerate(parts):
        others = set().union(*(side for index, side in enumerate(words) if index != number))
        yield _remove_underscore(_remove_ampersand(part, others), others)


def _remove_ampersand(text: str, others: set[str]) -> str:
    """Without the mark of `&File`, `E&xit`; `Q&A`, `a=1&b=2`, and words that stand on another side too, are kept."""
    if "&" not in text:
        return text
    masked = _masked(text)
    pieces, end = [], 0
    for match in _AMPERSAND.finditer(masked):
        if match["double"]:
            pieces += [text[end : match.start()], "&"]
            end = match.end()
        elif match["mark"] and _is_accelerator(masked, match.start(), others):
            pieces.append(text[end : match.start()])
            end = match.end()
    return "".join(pieces) + text[end:]


def _remove_underscore(text: str, others: set[str]) -> str:
    """Without the mark of `_File`, `E_xit`; identifiers (several marks, or the same on another side) are kept."""
    if "_" not in text:
        return text
    masked = _masked(text)
    if masked.count("_") != 1 or not _is_accelerator(masked, at := masked.index("_"), others):
        return text
    return text[:at] + text[at + 1 :]


def _is_accelerator(text: str, at: int, others: set[str]) -> bool:
    """Whether the character marks the one behind it as a shortcut: at a word's start, or before its small letter."""
    after = text[at + 1 : at + 2]
    inside = at > 0 and text[at - 1].isalnum()
    word = text[max(text.rfind(blank, 0, at) for blank in " \n\t") + 1 :].split(maxsplit=1)[0]
    if not after.isalnum() or (inside and not after.islower()):
        return False
    # A word that stands on another side too is a name (snake_case), unless it looks like a menu's: _OK.
    return (word not in others or (not inside and after.isupper())) and "://" not in word and "=" not in word


def _masked(text: str) -> str:
    return _PLACEHOLDER.sub(lambda match: "\0" * len(match[0]), text)


def _unescape(text: str) -> str:
    # Only what is written with its semicolon: html.unescape would read the legacy "&reg" in "&regular".
    return _ENTITY.sub(lambda match: html.unescape(match[0]), text) if "&" in text else text


def _squeeze(text: str) -> str:
    return " ".join(text.split())
