"""`hplt_mono/v3.0`, `hplt_mono/v2.0`: documents of HPLT's web crawls in one language, as their paragraphs.

A language is many large files (shards) of documents. They are read in a random order and only as far as the sentences
that are asked for need it; nothing is stored. A document must have the wanted score and language, and a paragraph the
language. LIMBECK_HPLT_URL names a mirror.
"""

import hashlib
import io
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

from pipeline.common.download import fetch_text, stream
from pipeline.common.errors import UserError
from pipeline.common.files import read_lines
from pipeline.common.remote import local_path
from pipeline.data.language_codes import iso_codes, read_locale, script_of
from pipeline.data.remote_files import Alternatives, base_address, missing, only_language
from pipeline.data.source import Source

ADDRESS = "https://data.hplt-project.org"
# Of each version, where a language's list of shards is.
_LISTS = {"mono/v3.0": "three/sorted/{code}.map", "mono/v2.0": "two/cleaned/{code}_map.txt"}
_SCORE_IN_NAME = re.compile(r"/(\d+)_\d+\.jsonl\.zst$")  # of version 3: 9_1.jsonl.zst has scores from 9 to 10


def open_source(rest: str, languages: tuple[str, ...], folder: Path, min_doc_score: float = 0.0) -> Source:
    """Open `hplt_<rest>`: how many rows it has is not known. `min_doc_score` is between 0 and 10.

    Raises UserError when there is no such version or language and on a damaged file, TransientError when the server
    cannot be reached now.
    """
    dataset = f"hplt_{rest}"
    alternatives = addresses(rest, languages)[0]
    uri, shards = _find_shards(alternatives, dataset)
    shards = [shard for shard in shards if _may_reach(shard, min_doc_score)]
    if not shards:
        raise UserError(f"data set {dataset} has no documents with a score of {min_doc_score} or more: see {uri}")
    # Random, and the same each time: the first shards are a fair sample of all.
    random.Random(hashlib.sha256(uri.encode()).hexdigest()).shuffle(shards)
    dropped: Counter[str] = Counter()
    rows = _rows(shards, set(_codes(languages[0])), min_doc_score, dropped)
    return Source(rows=rows, total=None, dropped=dropped, origin={"list": uri, "shards": len(shards)})


def addresses(rest: str, languages: tuple[str, ...]) -> list[Alternatives]:
    """The addresses that the list of a language's shards may have; how many of those are read depends on the rest."""
    dataset = f"hplt_{rest}"
    if rest not in _LISTS:
        raise UserError(f"data set {dataset} is not known: HPLT has {' and '.join(f'hplt_{name}' for name in _LISTS)}")
    place = base_address("LIMBECK_HPLT_URL", ADDRESS)
    return [tuple(f"{place}/{_LISTS[rest].format(code=code)}" for code in _codes(only_language(languages, dataset)))]


def _codes(language: str) -> list[str]:
    locale = read_locale(language)
    return [f"{code}_{script_of(locale)}" for code in iso_codes(locale)]


def _find_shards(alternatives: Alternatives, dataset: str) -> tuple[str, list[str]]:
    """The list that exists, and the addresses in it: of the mirror, where there is one."""
    for uri in alternatives:
        text = _read_list(uri)
        if text is not None:
            place = base_address("LIMBECK_HPLT_URL", ADDRESS)
            lines = (line.strip() for line in text.splitlines())
            return uri, [line.replace(ADDRESS, place, 1) for line in lines if line]
    raise UserError(missing(dataset, alternatives))


def _read_list(uri: str) -> str | None:
    path = local_path(uri)
    if path is not None:
        return path.read_text(encoding="utf-8") if path.is_file() else None
    page = fetch_text(uri, "text/plain")
    return page[0] if page else None


def _may_reach(shard: str, min_doc_score: float) -> bool:
    match = _SCORE_IN_NAME.search(shard)
    return match is None or int(match[1]) + 1 > min_doc_score


def _rows(shards: list[str], codes: set[str], min_doc_score: float, dropped: Counter[str]) -> Iterator[tuple[str]]:
    for shard in shards:
        for number, line in enumerate(_lines(shard), 1):
            try:
                document = json.loads(line)
                paragraphs = document["text"].split("\n")
                score, language, segments = document["doc_scores"][0], document["lang"][0], document["seg_langs"]
            except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
                raise UserError(f"line {number} of {shard} is not a document of HPLT: {error!r}") from error
            reason = _fault(score < min_doc_score, language not in codes, len(segments) != len(paragraphs))
            if reason:
                dropped[reason] += len(paragraphs)
                continue
            for paragraph, segment in zip(paragraphs, segments, strict=True):
                if segment in codes and paragraph.strip():
                    yield (paragraph,)
                else:
                    dropped["paragraph-language" if paragraph.strip() else "empty"] += 1


def _fault(is_low: bool, is_other: bool, is_uneven: bool) -> str:
    """Why a document cannot be used; empty when it can."""
    if is_low:
        return "document-score"
    if is_other:
        return "document-language"
    return "document-segments" if is_uneven else ""


def _lines(shard: str) -> Iterator[str]:
    path = local_path(shard)
    if path is not None:
        yield from read_lines(path)
        return
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    raw: Any = _Chunks(stream(shard))
    try:
        with decompressor.stream_reader(raw, read_across_frames=True) as reader:
            yield from io.TextIOWrapper(io.BufferedReader(reader, 1 << 17), encoding="utf-8", newline="\n")
    except (zstandard.ZstdError, UnicodeDecodeError) as error:
        raise UserError(f"{shard} is not a sound zstd file: {error}") from error


class _Chunks(io.RawIOBase):
    """Pieces of bytes as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = memoryview(chunk)
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size
