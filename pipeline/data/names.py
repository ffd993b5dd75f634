"""Names of data sets: `importer_rest`, where the importer says how to read the rest.

| name | where the text comes from |
|---|---|
| `gettext_Django`, `gettext_Django==5.2.19` | the message catalogues that a Python distribution ships |
| `url_https://example.org/corpus.[LANG].zst` | a file of one sentence per line for each language, fetched |
| `file_/data/corpus.[LANG].gz` | the same, on this machine |
| `opus_Books/v1` | a corpus of OPUS, parallel or monolingual |
| `sacrebleu_wmt19` | a test set that sacreBLEU knows |
| `flores_devtest` | FLORES-200 |
| `mtdata_Statmt-europarl-10-deu-eng` | a data set of mtdata's index |
| `tmx_https://example.org/memory.tmx.gz` | a translation memory |
| `news-crawl_news.2021` | a year of News Crawl, monolingual |
| `hplt_mono/v3.0` | HPLT's web crawls, monolingual |

A parallel data set may have an augmentation in its name, to test a model on such text: `flores_aug-upper_devtest`,
`sacrebleu_aug-mix_wmt19` (see `pipeline.data.augmented`).
"""

import difflib
import hashlib
import re

from pipeline.common.errors import UserError

IMPORTERS = ("file", "flores", "gettext", "hplt", "mtdata", "news-crawl", "opus", "sacrebleu", "tmx", "url")
LONGEST_FILE_NAME = 60

# Importers of existing training configs that stand for services which are not read here.
_SERVICES = """
bouquet tatoeba statmt wmt custom-corpus custom-mono hf huggingface commoncrawl cc100 leipzig nllb paracrawl
"""
_UNSUPPORTED = frozenset(_SERVICES.split())
AUGMENTATIONS = ("title", "upper", "punct", "typos", "noise", "inline-noise", "mix", "mix-cjk")
_AUGMENTATION = re.compile(r"aug-([a-z-]+)_(.*)")
_NOT_IN_FILE_NAMES = re.compile(r"[^A-Za-z0-9_-]+")
_LANGUAGE_PLACE = re.compile(r"\.?\[LANG\]")
_COMPRESSION = re.compile(r"\.(?:zst|gz|txt|tsv)$")


def split_dataset(name: str) -> tuple[str, str]:
    """The importer of a data set and what it is to import: `("gettext", "Django")` of `gettext_Django`.

    An augmentation is no part of it. Raises UserError when the importer is not known or not supported, when there is
    nothing after it, and for an augmentation that there is not.
    """
    importer, _, rest = name.partition("_")
    if importer not in IMPORTERS:
        raise UserError(_unknown(name, importer))
    if not rest:
        raise UserError(f"data set {name!r} names nothing to import: write {importer}_ and then {_MEANING[importer]}")
    augmentation, plain = split_augmentation(rest)
    if augmentation and augmentation not in AUGMENTATIONS:
        raise UserError(
            f"data set {name!r}: there is no augmentation {augmentation!r}; there are {', '.join(AUGMENTATIONS)}"
        )
    if not plain:
        raise UserError(f"data set {name!r} names nothing to import after aug-{augmentation}_")
    return importer, plain


def split_augmentation(rest: str) -> tuple[str | None, str]:
    """The augmentation that stands before what a data set's importer reads, and the rest: `("mix", "devtest")` of
    `aug-mix_devtest`."""
    match = _AUGMENTATION.match(rest)
    return (match[1], match[2]) if match else (None, rest)


def sanitize(name: str) -> str:
    """The data set's name as it may stand in file names and task labels: letters, digits, `-` and `_`, at most 60.

    A name that loses more than its punctuation (paths, long names) ends in six digits of its hash, so that two data
    sets never share a file.
    """
    importer, _, rest = name.partition("_")
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]
    if importer in ("url", "file"):
        last = rest.rstrip("/").rpartition("/")[2]
        stem = _COMPRESSION.sub("", _COMPRESSION.sub("", _LANGUAGE_PLACE.sub("", last.partition("?")[0])))
        stem = _NOT_IN_FILE_NAMES.sub("_", stem).strip("_") or "corpus"
        return f"{importer}_{stem[: LONGEST_FILE_NAME - len(importer) - 8]}_{digest}"
    plain = _NOT_IN_FILE_NAMES.sub("_", name).strip("_")
    # A distribution's version may be written plainly: `gettext_Django==5.2.19` cannot be confused with another name.
    if plain and len(plain) <= LONGEST_FILE_NAME and (importer == "gettext" or plain == name):
        return plain
    return f"{plain[: LONGEST_FILE_NAME - 7]}_{digest}"


_MEANING = {
    "file": "a path with [LANG] where the language stands",
    "flores": "dev or devtest",
    "gettext": "the name of a Python distribution",
    "hplt": "mono/v3.0",
    "mtdata": "an id of mtdata's index, such as Statmt-europarl-10-deu-eng",
    "news-crawl": "a year, such as news.2021",
    "opus": "a corpus and its version, such as Books/v1",
    "sacrebleu": "a test set, such as wmt19",
    "tmx": "the address of a translation memory",
    "url": "a URL with [LANG] where the language stands",
}


def _unknown(name: str, importer: str) -> str:
    known = ", ".join(f"{known}_" for known in IMPORTERS)
    if importer in _UNSUPPORTED:
        return (
            f"data set {name!r}: the importer {importer} is not supported; the supported ones are {known}, and url_ or "
            "file_ read a copy of the corpus that you downloaded"
        )
    nearest = difflib.get_close_matches(importer.lower(), [*IMPORTERS, *_UNSUPPORTED], n=1)
    hint = f"; did you mean {nearest[0]}_?" if nearest and nearest[0] in IMPORTERS else ""
    return f"data set {name!r}: there is no importer {importer!r}; the importers are {known.rstrip()}{hint}"
