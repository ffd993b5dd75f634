"""`opus_<corpus>/<version>`: a corpus of OPUS, parallel (the zip of its Moses format) or monolingual.

LIMBECK_OPUS_URL names a mirror. A zip is read where it lies, never unpacked.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from pipeline.common.errors import UserError
from pipeline.data.language_codes import opus_codes
from pipeline.data.remote_files import Alternatives, base_address, fetch_first, open_fetched
from pipeline.data.source import Source

ADDRESS = "https://object.pouta.csc.fi"
_NAME = re.compile(r"(?P<corpus>[^/\s]+)/(?P<version>[^/\s]+)")
_CHUNK = 1 << 20


def open_source(rest: str, languages: tuple[str, ...], folder: Path) -> Source:
    """Fetch `opus_<rest>` into `folder` and open it.

    Raises UserError when OPUS does not have it, on a damaged file and on sides of unequal length; TransientError when
    OPUS cannot be reached now.
    """
    dataset = f"opus_{rest}"
    if len(languages) == 1:
        uri, path = fetch_first(addresses(rest, languages)[0], folder, dataset)
        return open_fetched([path], [uri], languages, dataset, {"urls": [uri]})
    codes = _pairs(rest, languages)
    uri, path = fetch_first(tuple(codes), folder, dataset)
    return _open_zip(path, uri, codes[uri], dataset)


def addresses(rest: str, languages: tuple[str, ...]) -> list[Alternatives]:
    """The addresses that the corpus's one file may have."""
    if len(languages) == 1:
        place = _place(rest)
        return [tuple(f"{place}/mono/{code}.txt.gz" for code in opus_codes(languages[0]))]
    return [tuple(_pairs(rest, languages))]


def _place(rest: str) -> str:
    match = _NAME.fullmatch(rest)
    if match is None:
        raise UserError(f"data set opus_{rest} must name a corpus and its version, as in opus_Books/v1")
    return f"{base_address('LIMBECK_OPUS_URL', ADDRESS)}/OPUS-{match['corpus']}/{match['version']}"


def _pairs(rest: str, languages: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """The addresses that a pair's file may have, with OPUS's codes of the two languages, in our order."""
    place = _place(rest)
    pairs: dict[str, tuple[str, str]] = {}
    for src, trg in product(*map(opus_codes, languages)):
        for first, second in (sorted((src, trg)), sorted((src, trg), reverse=True)):  # OPUS sorts, but not always
            pairs[f"{place}/moses/{first}-{second}.txt.zip"] = src, trg
    return pairs


def _open_zip(path: Path, uri: str, codes: tuple[str, str], dataset: str) -> Source:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise UserError(f"{uri} is not a sound zip archive: {error}") from error
    members = [_member(archive, code, uri) for code in codes]
    lines = [_count_lines(archive, member, uri) for member in members]
    if lines[0] != lines[1]:
        raise UserError(
            f"data set {dataset} has {lines[0]:,} lines in {members[0]} and {lines[1]:,} lines in {members[1]}: "
            "line N of one side must be the translation of line N"
        )
    rows = zip(*(_read_lines(archive, member, uri) for member in members), strict=True)
    return Source(rows=rows, total=lines[0], origin={"urls": [uri], "members": members})


def _member(archive: zipfile.ZipFile, code: str, uri: str) -> str:
    """The file of a language, as in Books.de-en.de; beside the two there are README, LICENSE and the like."""
    names = archive.namelist()
    found = [name for name in names if name.endswith(f".{code}")]
    if len(found) != 1:
        raise UserError(
            f"{uri} must hold one file whose name ends in .{code}; it holds {', '.join(names) or 'nothing'}"
        )
    return found[0]


def _count_lines(archive: zipfile.ZipFile, member: str, uri: str) -> int:
    """Number of lines, the last one with or without its line end; reads all, and so checks the archive's checksum."""
    lines, last = 0, b"\n"
    try:
        with archive.open(member) as file:
            while chunk := file.read(_CHUNK):
                lines += chunk.count(b"\n")
                last = chunk
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{uri} is damaged in {member}: {error}") from error
    return lines + (not last.endswith(b"\n"))


def _read_lines(archive: zipfile.ZipFile, member: str, uri: str) -> Iterator[str]:
    with archive.open(member) as file, io.TextIOWrapper(file, encoding="utf-8", newline="\n") as text:
        try:
            for line in text:
                yield line.rstrip("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise UserError(f"{member} of {uri} is not UTF-8 text: {error.reason}") from error
