"""What importing a data set would fetch, and how large that is, asked before anything is fetched."""

from typing import Any

from pipeline.common.errors import UserError
from pipeline.data.importers import load_importer
from pipeline.data.names import split_dataset


def addresses(dataset: str, languages: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The files that importing a data set for a language or a pair would fetch: for each, where it may be.

    A file's addresses are alternatives, tried in order until one exists: OPUS has a pair under either order of its
    languages and under several codes of a language. Nothing is asked of any server. The list is empty for what needs
    none (file_) or is found otherwise (gettext_); of hplt_ it has the list of shards, as how many of those are read
    depends on how many sentences are wanted.
    Raises UserError on a name that is not one, or that cannot be had for so many languages.
    """
    importer, rest = split_dataset(dataset)
    module: Any = load_importer(importer)
    return module.addresses(rest, languages) if hasattr(module, "addresses") else []


def probe(dataset: str, languages: tuple[str, ...]) -> int | None:
    """How many bytes importing a data set would fetch; None when that cannot be known before.

    Raises UserError when the data set does not exist for the languages, TransientError when a server cannot be
    reached now.
    """
    from pipeline.common import remote  # this module is imported by commands that must start at once
    from pipeline.common.download import MissingError
    from pipeline.data.remote_files import missing

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
    if not sizes or None in sizes or split_dataset(dataset)[0] == "hplt":
        return None
    return sum(size for size in sizes if size is not None)
