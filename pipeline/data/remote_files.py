"""Files of collections on the web: the first of several addresses that has one, kept where the user wants it.

The codes of languages and the order of a pair differ from corpus to corpus, so a file has one or more addresses, the
likeliest first. Set LIMBECK_CACHE to a folder to keep what was fetched.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.common import remote
from pipeline.common.download import MissingError
from pipeline.common.errors import UserError
from pipeline.data.file_importer import open_files
from pipeline.data.source import Source

Alternatives = tuple[str, ...]  # the addresses that a file may have


def base_address(variable: str, default: str) -> str:
    """The address of a collection: of its mirror that an environment variable names, or its own."""
    return (os.environ.get(variable) or default).rstrip("/")


def fetch_first(alternatives: Sequence[str], folder: Path, dataset: str) -> tuple[str, Path]:
    """Fetch the first file that exists: its address, and its path in `folder` or in $LIMBECK_CACHE.

    Raises UserError when there is none, and as `pipeline.common.remote.fetch` does.
    """
    for uri in alternatives:
        kept = place_in_cache(uri)
        if kept is not None and kept.is_file():
            return uri, kept
    for uri in alternatives:
        path = place_in_cache(uri) or folder / uri.rpartition("/")[2]
        try:
            remote.fetch(uri, path)
        except MissingError:
            continue
        return uri, path
    raise UserError(missing(dataset, alternatives))


def place_in_cache(uri: str) -> Path | None:
    """Where $LIMBECK_CACHE keeps a file of the web; None when it is not set or the file is of this machine."""
    cache = os.environ.get("LIMBECK_CACHE")
    if not cache or remote.local_path(uri) is not None:
        return None
    parts = urlsplit(uri)
    return Path(cache).expanduser() / "corpora" / (parts.hostname or "") / parts.path.lstrip("/")


def missing(dataset: str, alternatives: Sequence[str]) -> str:
    """What to say when a data set is at none of its addresses."""
    shown = alternatives[0] if len(alternatives) == 1 else f"any of {', '.join(alternatives)}"
    return f"data set {dataset} does not exist for these languages: there is no file at {shown}"


def open_fetched(
    paths: Sequence[Path], uris: Sequence[str], languages: tuple[str, ...], dataset: str, origin: Mapping[str, object]
) -> Source:
    """Fetched text files as a source; errors name the addresses, not the temporary files."""
    try:
        return open_files(list(paths), languages, dataset, dict(origin))
    except UserError as error:
        message = str(error)
        for uri, path in zip(uris, paths, strict=True):
            message = message.replace(str(path), uri)
        raise UserError(message) from error


def only_language(languages: tuple[str, ...], dataset: str) -> str:
    """The language of a data set that has text of one. Raises UserError for a pair."""
    if len(languages) != 1:
        raise UserError(f"data set {dataset} is monolingual: it belongs under mono-src or mono-trg")
    return languages[0]


def only_pair(languages: tuple[str, ...], dataset: str) -> tuple[str, str]:
    """The two languages of a data set of translations. Raises UserError for a single one."""
    if len(languages) != 2:
        raise UserError(f"data set {dataset} is parallel: it belongs under train, devtest or test")
    return languages[0], languages[1]
