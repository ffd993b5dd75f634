"""What OPUS has for a language or a pair, asked of its API: names as training configs write them, sizes, sentences.

LIMBECK_OPUS_API replaces the API's address.
"""

import json
import os
from dataclasses import dataclass
from itertools import product
from typing import Any
from urllib.parse import urlencode

from pipeline.common.errors import TransientError, UserError
from pipeline.data.language_codes import opus_codes

API = "https://opus.nlpl.eu/opusapi/"


@dataclass(frozen=True)
class Corpus:
    """A corpus of OPUS in its latest version."""

    name: str  # as a training config names it: opus_Books/v1
    sentences: int | None  # pairs of them in a parallel corpus
    size: int | None  # bytes of the compressed file


def find_corpora(src: str, trg: str) -> list[Corpus]:
    """The parallel corpora of a pair, the largest first; their order of languages does not matter.

    Raises UserError on an answer that is not the API's, TransientError when it cannot be reached now.
    """
    found: dict[str, Corpus] = {}
    for source, target in product(opus_codes(src), opus_codes(trg)):
        # The first code that has a corpus is the one that the importer reads, too.
        for entry in _ask(source=source, target=target, preprocessing="moses", version="latest"):
            corpus = _corpus(entry)
            found.setdefault(corpus.name, corpus)
    return _largest_first(found)


def find_mono(lang: str) -> list[Corpus]:
    """The monolingual corpora of a language, the largest first. Raises as `find_corpora` does."""
    found: dict[str, Corpus] = {}
    for code in opus_codes(lang):
        for entry in _ask(source=code, preprocessing="mono", version="latest"):
            # A corpus is listed twice: plain (.txt.gz), which is wanted, and tokenized (.tok.gz).
            if str(entry.get("url", "")).endswith(f"/{code}.txt.gz"):
                corpus = _corpus(entry)
                found.setdefault(corpus.name, corpus)
    return _largest_first(found)


def _ask(**parameters: str) -> list[dict[str, Any]]:
    from pipeline.common.download import fetch_text  # the modules that a trigger imports stay light

    address = f"{os.environ.get('LIMBECK_OPUS_API') or API}?{urlencode(parameters)}"
    page = fetch_text(address, "application/json")
    if page is None:
        raise UserError(f"{address} does not exist: LIMBECK_OPUS_API must be the address of OPUS's API")
    try:
        corpora = json.loads(page[0])["corpora"]
    except (ValueError, KeyError, TypeError) as error:
        raise TransientError(f"{address} did not answer with a list of corpora but with {page[0][:80]!r}") from error
    return [entry for entry in corpora if entry.get("corpus") and entry.get("version")]


def _corpus(entry: dict[str, Any]) -> Corpus:
    kibibytes = _count(entry.get("size"))
    return Corpus(
        name=f"opus_{entry['corpus']}/{entry['version']}",
        sentences=_count(entry.get("alignment_pairs")),
        size=None if kibibytes is None else kibibytes * 1024,
    )


def _count(value: Any) -> int | None:
    """A number of the API, which writes one as text at times, and as nothing where it is not known."""
    return int(value) if str(value).isdigit() and int(value) else None


def _largest_first(found: dict[str, Corpus]) -> list[Corpus]:
    return sorted(found.values(), key=lambda corpus: (-(corpus.sentences or 0), corpus.name))
