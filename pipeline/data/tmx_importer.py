"""`tmx_<address>`: a translation memory (TMX 1.4), plain, gzip or zstd, of the web, another storage or this machine."""

import gzip
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast
from xml.etree import ElementTree

from pipeline.common.corpus import write_columns
from pipeline.common.errors import UserError
from pipeline.common.files import open_binary
from pipeline.common.remote import fetch, local_path
from pipeline.data.file_importer import open_files
from pipeline.data.language_codes import read_locale
from pipeline.data.locales import Locale, closeness, parse_locale
from pipeline.data.remote_files import Alternatives, only_pair
from pipeline.data.source import Source

_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


def open_source(rest: str, languages: tuple[str, ...], folder: Path) -> Source:
    """Fetch `tmx_<rest>` into `folder`, and read the units that have both languages.

    Raises UserError on a file that is not a sound TMX or has not both languages, and as fetching does.
    """
    dataset = f"tmx_{rest}"
    path = local_path(rest)
    if path is None:
        path = folder / "memory.tmx"
        fetch(rest, path)
    locales = [read_locale(language) for language in only_pair(languages, dataset)]
    sides = [folder / "source.zst", folder / "target.zst"]
    dropped: Counter[str] = Counter()
    seen: set[str] = set()
    with write_columns(*sides) as writer:
        for unit in _units(path, rest):
            seen |= unit.keys()
            row = [_closest(unit, locale) for locale in locales]
            if all(row):
                writer.write(*row)
            else:
                dropped["untranslated"] += 1
        if not writer.lines:
            raise UserError(
                f"data set {dataset} has no unit in both {' and '.join(languages)}: its languages are "
                f"{', '.join(sorted(seen)) or 'none'}"
            )
    source = open_files(sides, languages, dataset, {"urls": [rest]})
    return Source(source.rows, source.total, dict(dropped), source.origin)


def addresses(rest: str, languages: tuple[str, ...]) -> list[Alternatives]:
    """The address itself."""
    only_pair(languages, f"tmx_{rest}")
    return [(rest,)]


def _units(path: Path, shown: str) -> Iterator[dict[str, str]]:
    """The units of a memory one after the other: text by language."""
    with open_binary(path) as file:
        try:
            parents: list[ElementTree.Element] = []
            for event, element in ElementTree.iterparse(cast(IO[bytes], file), ("start", "end")):
                if event == "start":
                    parents.append(element)
                    continue
                parents.pop()
                if element.tag == "tu":
                    yield {language: text for variant in element.iter("tuv") for language, text in _variant(variant)}
                    parents[-1].clear()  # what has been read need not stay in memory
        except (ElementTree.ParseError, zlib.error, gzip.BadGzipFile, EOFError) as error:
            raise UserError(f"{shown} is not a sound TMX file: {error}") from error


def _variant(variant: ElementTree.Element) -> Iterator[tuple[str, str]]:
    """Language and text, without the markup inside it."""
    language = variant.get(_LANGUAGE) or variant.get("lang")
    segment = variant.find("seg")
    if language and segment is not None:
        yield language, " ".join("".join(segment.itertext()).split())


def _closest(unit: dict[str, str], wanted: Locale) -> str:
    """The text in the language that serves best; empty when none does."""
    found = [(closeness(wanted, locale), text) for tag, text in unit.items() if (locale := parse_locale(tag)) and text]
    return min(((distance, text) for distance, text in found if distance >= 0), default=(0, ""))[1]
