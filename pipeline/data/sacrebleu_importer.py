"""`sacrebleu_<test set>`: a test set that sacreBLEU knows (wmt19, wmt22, iwslt17, mtedx/test …), source and reference.

Its files lie in sacreBLEU's own folder ($SACREBLEU, else ~/.sacrebleu), fetched once. A pair is taken in either
direction: `en-de` in reverse has the references as its source.
"""

import difflib
import fcntl
import hashlib
import tempfile
from pathlib import Path
from typing import Any

from pipeline.common.download import download
from pipeline.common.errors import UserError
from pipeline.data.language_codes import read_locale
from pipeline.data.locales import closeness, parse_locale
from pipeline.data.remote_files import Alternatives, only_pair, open_fetched
from pipeline.data.source import Source


def open_source(rest: str, languages: tuple[str, ...], folder: Path) -> Source:
    """Open `sacrebleu_<rest>`, fetched to sacreBLEU's folder if it is not there; `folder` is not used.

    Raises UserError when there is no such test set or it does not have the pair, TransientError when its server cannot
    be reached now.
    """
    dataset = f"sacrebleu_{rest}"
    test_set, pair = _find(rest, languages)
    source, reference = _texts(test_set, pair, dataset)
    forward = _serves(languages, pair)
    paths = [source, reference] if forward else [reference, source]
    origin = {"test-set": rest, "pair": pair, "reversed": not forward}
    names = [f"{path.name} of {dataset}" for path in paths]
    return open_fetched(paths, names, languages, dataset, origin)


def addresses(rest: str, languages: tuple[str, ...]) -> list[Alternatives]:
    """The addresses of the test set's archives, without those that sacreBLEU's folder has already."""
    test_set, _ = _find(rest, languages)
    return [(url,) for url, path, _ in _files(test_set) if not path.is_file()]


def _find(rest: str, languages: tuple[str, ...]) -> tuple[Any, str]:
    """sacreBLEU's test set, and the pair of it that has the languages, in their direction if possible."""
    from sacrebleu.dataset import DATASETS  # takes a while, and is needed for this importer only

    dataset = f"sacrebleu_{rest}"
    only_pair(languages, dataset)
    for language in languages:
        read_locale(language)
    if rest not in DATASETS:
        nearest = difflib.get_close_matches(rest, DATASETS, n=3) or sorted(DATASETS)
        raise UserError(f"data set {dataset}: sacreBLEU has no test set {rest!r}; it has {', '.join(nearest)}")
    test_set = DATASETS[rest]
    for wanted in (languages, languages[::-1]):
        for pair in test_set.langpairs:
            if _serves(wanted, pair):
                return test_set, pair
    known = ", ".join(sorted(test_set.langpairs))
    raise UserError(f"data set {dataset} does not have {'-'.join(languages)}: it has {known}")


def _serves(languages: tuple[str, ...], pair: str) -> bool:
    found = [parse_locale(code) for code in pair.split("-")]
    return all(
        locale is not None and closeness(read_locale(language), locale) >= 0
        for language, locale in zip(languages, found, strict=True)
    )


def _files(test_set: Any) -> list[tuple[str, Path, str | None]]:
    """The archives of a test set: address, path in sacreBLEU's folder, MD5 where it is known."""
    # Names that sacreBLEU keeps to itself: it has none for the places at which it looks for what is there already.
    folder = Path(test_set._rawdir)
    digests = test_set.md5 or [None] * len(test_set.data)
    return [
        (url, folder / test_set._get_tarball_filename(url), digest)
        for url, digest in zip(test_set.data, digests, strict=True)
    ]


def _texts(test_set: Any, pair: str, dataset: str) -> tuple[Path, Path]:
    """The texts of a pair, source and first reference, unpacked by sacreBLEU; by one process at a time."""
    folder = Path(test_set._rawdir)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for url, path, digest in _files(test_set):
            if not path.is_file():
                _fetch(url, path, digest, dataset)
        source = test_set.get_source_file(pair)
        references = test_set.get_reference_files(pair)
    if not references:
        raise UserError(f"data set {dataset} has no reference for {pair}")
    return Path(source), Path(references[0])


def _fetch(url: str, path: Path, digest: str | None, dataset: str) -> None:
    """Fetch and unpack an archive. It gets its name when both are done: sacreBLEU takes one that is there for whole."""
    from sacrebleu.utils import extract_tarball

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetching-") as folder:
        archive = Path(folder) / path.name
        download(url, archive)
        with archive.open("rb") as file:
            real = hashlib.file_digest(file, "md5").hexdigest()
        if digest is not None and real != digest:
            raise UserError(
                f"data set {dataset}: {url} is not the file that sacreBLEU expects: MD5 {real}, not {digest}"
            )
        extract_tarball(str(archive), str(path.parent))
        archive.replace(path)
