"""What importing a data set would fetch, and how large that is, asked before anything is fetched."""

from typing import Any

from pipeline.common.errors import UserError
from pipeline.data.importers import load_importer
from pipeline.data.names import split_dataset

# Importers whose files do not change, so that $LIMBECK_CACHE keeps them.
_KEPT = frozenset({"flores", "news-crawl", "opus"})


def addresses(dataset: str, languages: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The files that importing a data set for a language or a pair would fetch: for each, where it may be.

    A file's addresses are alternatives, tried in order until one exists: OPUS has a pair under either order of its
    languages and under several codes of a language. Nothing is asked of any server. The list is empty for what needs
    none (file_) or is found otherwise (gettext_); of hplt_ it has the list of shards, as how many of those are read
    depends on how many sentences are wanted. A file that was kept from an earlier import is not in it.
    Raises UserError on a name that is not one, or that cannot be had for so many languages.
    """
    importer, rest = split_dataset(dataset)
    module: Any = load_importer(importer)
    files: list[tuple[str, ...]] = module.addresses(rest, languages) if hasattr(module, "addresses") else []
    return [file for file in files if not _is_kept(file)] if importer in _KEPT else files


def probe(dataset: str, languages: tuple[str, ...]) -> int | None:
    """How many bytes importing a data set would fetch (0: all is here); None when that cannot be known before.

    Raises UserError when the data set does not exist for the languages, TransientError when a server cannot be
    reached now.
    """
    from pipeline.common import remote  # this module is imported by commands that must start at once
    from pipeline.common.download import MissingError
    from pipeline.data.remote_files import missing

    importer, _ = split_dataset(dataset)
    files = addresses(dataset, languages)
    sizes: list[int | None] = []
    for alternatives in files:
        for uri in alternatives:
            try:
                sizes.append(remote.size(uri))
                break
            except MissingError:
                continue
        else:
            raise UserError(missing(dataset, alternatives))
    if None in sizes or importer in ("file", "gettext", "hplt"):
        return None
    return sum(size for size in sizes if size is not None)


def _is_kept(alternatives: tuple[str, ...]) -> bool:
    from pipeline.data.remote_files import place_in_cache

    return any(kept is not None and kept.is_file() for kept in map(place_in_cache, alternatives))
