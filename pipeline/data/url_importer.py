"""`url_<address>`: text files from the web, one sentence per line, one file for each language.

`[LANG]` in the address stands for the language. http, https and file addresses; the files are plain, gzip or zstd, told
apart by their content. A fetched file lies compressed in a temporary folder while it is read.
"""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.common.download import download
from pipeline.common.errors import UserError
from pipeline.data.file_importer import places
from pipeline.data.remote_files import Alternatives, open_fetched
from pipeline.data.source import Source


def open_source(rest: str, languages: tuple[str, ...], folder: Path) -> Source:
    """Fetch `url_<rest>` for one or more languages into `folder` and open it.

    Raises UserError on an address that cannot be read, a damaged file and sides of unequal length; TransientError when
    a server cannot be reached now.
    """
    dataset = f"url_{rest}"
    urls = places(rest, languages, dataset)
    paths = []
    for url, language in zip(urls, languages, strict=True):
        (folder / language).mkdir()
        paths.append(_local(url, folder / language))
    return open_fetched(paths, urls, languages, dataset, {"urls": urls})


def addresses(rest: str, languages: tuple[str, ...]) -> list[Alternatives]:
    """One address for each language."""
    return [(url,) for url in places(rest, languages, f"url_{rest}")]


def _local(url: str, folder: Path) -> Path:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UserError(f"{url} is not an address: {error}") from error
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise UserError(f"{url} names a file of another machine ({parts.netloc}): write file:///path")
        return Path(unquote(parts.path))
    if parts.scheme not in ("http", "https"):
        raise UserError(f"{url} must begin with https://, http:// or file://")
    name = unquote(parts.path.rpartition("/")[2])[-100:] or "corpus"
    path = folder / name
    # What is named .zst must be zstd: an error page in its place is refused when it is opened.
    download(url, path, compress=path.suffix != ".zst")
    return path
