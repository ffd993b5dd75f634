"""Finding message catalogues among a distribution's files, and reading their messages.

Catalogues lie in `…/<locale>/LC_MESSAGES/<domain>.po`, `…/locale/<locale>/<domain>.po`, `…/po/<locale>.po` or
`…/<domain>-<locale>.po`; .mo files are the compiled ones.
"""

import gettext
import logging
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polib

from pipeline.data.locales import Locale, parse_locale

logger = logging.getLogger(__name__)

_LAYOUTS = (
    re.compile(r"(?P<before>(?:.*/)?)(?P<tag>[^/]+)(?P<after>/LC_MESSAGES/.+)\.(?P<kind>po|mo)"),
    re.compile(
        r"(?P<before>(?:.*/)?(?:locales?|i18n|translations?|lang|langs|languages|po)/)(?P<tag>[^/]+)(?P<after>/[^/]+)"
        r"\.(?P<kind>po|mo)"
    ),
    re.compile(r"(?P<before>(?:.*/)?)(?P<tag>[^/]+)(?P<after>)\.(?P<kind>po|mo)"),
    re.compile(r"(?P<before>(?:.*/)?[^/]+?[-_.])(?P<tag>[a-z]{2}(?:[-_][A-Za-z]+)?)(?P<after>)\.(?P<kind>po|mo)"),
)
_DEFAULT_TEXT = re.compile(r"^\s*Default:\s*\"?(.*?)\"?\s*$", re.DOTALL)
# Identifiers that stand for a message whose text is elsewhere: label_add, plone.app.title, heading:main.
_SYMBOLIC = re.compile(r"[^\W_]+(?:[_.:/][^\W_]+)+")
# An accelerator inside a single word (C_onnect), which looks like an identifier.
_ACCELERATED = re.compile(r"[A-Z][^\W_]{0,2}_[a-z]+")
_EMPTY = "untranslated"
_COUNTS = range(200)  # numbers by which the general plural form is found


@dataclass(frozen=True, order=True)
class Member:
    """A catalogue file: `key` is its name without the locale and the ending, equal for all its languages."""

    key: str
    tag: str
    kind: str  # po or mo
    name: str
    size: int  # bytes


@dataclass(frozen=True)
class Message:
    """One message in one form. `key` tells it from the others of its catalogue; `english` is None when not known."""

    key: tuple[str, str, int]  # context, identifier, 0 singular or 1 plural
    english: str | None
    text: str
    state: str  # "" or why it cannot be used: untranslated, fuzzy, obsolete


def find_members(sizes: dict[str, int]) -> list[tuple[Member, Locale]]:
    """The catalogues among files, in order of their names; `sizes` is name -> bytes."""
    found = []
    for name, size in sorted(sizes.items()):
        for number, layout in enumerate(_LAYOUTS):
            match = layout.fullmatch(name)
            if match is None:
                continue
            locale = parse_locale(match["tag"])
            # Outside LC_MESSAGES a word of three letters is a domain more often than a language.
            if locale is None or (number > 0 and len(re.split("[-_@]", match["tag"])[0]) > 2):
                continue
            key = f"{match['before']}*{match['after']}"
            found.append((Member(key, match["tag"], match["kind"], name, size), locale))
            break
    return found


def read_messages(path: Path, name: str) -> list[Message] | None:
    """The messages of a .po or .mo file, each plural message as its two forms; None (logged) when it is damaged."""
    try:
        catalogue = polib.mofile(str(path)) if name.endswith(".mo") else polib.pofile(str(path))
    except (OSError, ValueError, LookupError, struct.error) as error:
        logger.warning(f"{name} cannot be read and is left out: {error}")
        return None
    forms = plural_forms(catalogue.metadata.get("Plural-Forms", ""))
    return [message for entry in catalogue for message in _forms(entry, forms)]


def plural_forms(header: str) -> tuple[int, int]:
    """Indexes of the form for one and of the general plural form (the one for most numbers).

    `header` is the catalogue's Plural-Forms; (0, -1) when it has none that can be read, -1 being the last form.
    """
    match = re.search(r"nplurals\s*=\s*(\d+)\s*;\s*plural\s*=\s*([^;]+)", header)
    if match is None:
        return 0, -1
    try:
        form: Callable[[int], int] = gettext.c2py(match[2].strip())
        one = form(1)
        others = Counter(index for index in map(form, _COUNTS) if index != one)
    except (ValueError, ZeroDivisionError, OverflowError):
        return 0, -1
    return one, others.most_common(1)[0][0] if others else one


def is_symbolic(identifier: str) -> bool:
    """Whether a message's identifier is a name for its text rather than the text."""
    return bool(_SYMBOLIC.fullmatch(identifier)) and not _ACCELERATED.fullmatch(identifier)


def _forms(entry: polib.POEntry, forms: tuple[int, int]) -> Iterator[Message]:
    context = entry.msgctxt or ""
    english = _english(entry)
    # Only .po files have entries in these states; a compiled catalogue has those that are in use.
    state = "obsolete" if entry.obsolete else "fuzzy" if "fuzzy" in entry.flags else ""
    if not entry.msgid_plural:
        yield Message((context, entry.msgid, 0), english, entry.msgstr, state or ("" if entry.msgstr else _EMPTY))
        return
    texts = [entry.msgstr_plural[index] for index in sorted(entry.msgstr_plural)]
    for number, (identifier, form) in enumerate(zip((entry.msgid, entry.msgid_plural), forms, strict=True)):
        text = texts[form] if -len(texts) <= form < len(texts) else ""
        yield Message((context, entry.msgid, number), identifier, text, state or ("" if text else _EMPTY))


def _english(entry: polib.POEntry) -> str | None:
    # An extracted comment "Default: …" gives the text of an identifier; below a sentence it is a remark to translators.
    default = _DEFAULT_TEXT.match(entry.comment or "")
    if default and not re.search(r"\s", entry.msgid):
        return default[1].replace('\\"', '"').replace("\\n", "\n")
    return None if is_symbolic(entry.msgid) else entry.msgid
