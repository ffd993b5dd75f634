"""Finding and fetching a distribution's file from the package index that pip is configured with.

Only the index's simple API (PEP 503 HTML, PEP 691 JSON) is used, never pip's own download: that builds source
distributions, which runs their code. A file is chosen by version only, so every Python gets the same one.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from pipeline.common.download import download, fetch_text
from pipeline.common.errors import TransientError, UserError
from pipeline.common.files import sha256

_DEFAULT_INDEX = "https://pypi.org/simple"
_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_SDIST = re.compile(r"\.(?:tar\.(?:gz|bz2|xz)|tgz|zip)$")
_SECTIONS = ("global", "download", ":env:")  # later ones win


@dataclass(frozen=True)
class IndexFile:
    """One file of a distribution on an index. `sha256` is None where the index does not tell it."""

    name: str
    url: str
    version: Version
    is_wheel: bool
    is_plain: bool  # not for one platform only
    sha256: str | None


@dataclass(frozen=True)
class PipConfiguration:
    """What pip is told about where packages are."""

    indexes: tuple[str, ...]
    find_links: tuple[str, ...]
    certificates: str | None


def pip_configuration() -> PipConfiguration:
    """Index addresses, folders of links and certificates from pip's files and PIP_ variables."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False, timeout=60
    )
    settings: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for section, key, value in re.findall(r"^(global|download|:env:)\.([\w-]+)='(.*)'$", done.stdout, re.MULTILINE):
        settings[section][key] = value.replace("\\n", "\n")
    if done.returncode:  # no pip in this environment: its variables still say where to look
        names = ("index-url", "extra-index-url", "find-links", "no-index", "cert")
        values = {name: os.environ.get(f"PIP_{name.replace('-', '_').upper()}") for name in names}
        settings[":env:"] = {name: value for name, value in values.items() if value}
    merged = {key: value for section in _SECTIONS for key, value in settings[section].items()}
    indexes = [merged.get("index-url", _DEFAULT_INDEX), *merged.get("extra-index-url", "").split()]
    if merged.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        indexes = []
    return PipConfiguration(tuple(indexes), tuple(merged.get("find-links", "").split()), merged.get("cert"))


def find_files(distribution: str, version: str | None) -> list[IndexFile]:
    """The files of one version of a distribution, the best first: wheels for any platform, other wheels, sources.

    Without a version the newest that is neither a pre-release nor withdrawn. Raises UserError when the indexes do not
    have it, and TransientError when one cannot be reached and the others do not have it.
    """
    configuration = pip_configuration()
    normal = re.sub(r"[-_.]+", "-", distribution).lower()
    found: list[IndexFile] = []
    unreachable: TransientError | None = None
    for place in (*configuration.find_links, *(f"{index.rstrip('/')}/{normal}/" for index in configuration.indexes)):
        try:
            page = _page(place, configuration.certificates)
        except TransientError as error:
            unreachable = error
            continue
        found += [] if page is None else _parse_page(*page, normal, version)
    if version is not None:
        chosen: Version | None = Version(version)
    else:
        usable = {file.version for file in found}
        chosen = max({known for known in usable if not known.is_prerelease} or usable, default=None)
    files = [file for file in found if file.version == chosen]
    if not files and unreachable is not None:
        raise unreachable
    if not files:
        raise UserError(_not_found(distribution, version, found, configuration))
    return sorted(files, key=lambda file: (not file.is_wheel, not file.is_plain, file.name))


def fetch(file: IndexFile, folder: Path) -> Path:
    """The path of an index's file, fetched to a folder (or to $LIMBECK_CACHE and taken from there next time).

    Raises UserError when its content is not what the index promises, and as `download` does.
    """
    cache = os.environ.get("LIMBECK_CACHE")
    if cache:
        folder = Path(cache).expanduser() / "distributions"
        folder.mkdir(parents=True, exist_ok=True)
    path = folder / file.name
    if file.sha256 and path.is_file() and sha256(path) == file.sha256:
        return path
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if urlsplit(file.url).scheme == "file":
            shutil.copyfile(unquote(urlsplit(file.url).path), temporary)
        else:
            download(file.url, temporary, certificates=pip_configuration().certificates)
        if file.sha256 and (real := sha256(temporary)) != file.sha256:
            raise UserError(f"{file.url} is not the file its index promises: sha256 {real}, not {file.sha256}")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _page(place: str, certificates: str | None) -> tuple[str, str, str] | None:
    """Text, content type and address of a page of links; a folder is a page of its files. None when absent."""
    parts = urlsplit(place)
    if parts.scheme in ("http", "https"):
        return fetch_text(place, _ACCEPT, certificates)
    path = Path(unquote(parts.path)) if parts.scheme == "file" else Path(place).expanduser()
    if (path / "index.html").is_file():
        return (path / "index.html").read_text(encoding="utf-8"), "text/html", f"{path.absolute().as_uri()}/"
    if path.is_dir():
        names = [entry.name for entry in path.iterdir()]
        files = [{"filename": name, "url": (path / name).absolute().as_uri()} for name in names]
        return json.dumps({"files": files}), "application/json", ""
    if path.is_file():
        return path.read_text(encoding="utf-8"), "text/html", path.absolute().as_uri()
    return None


def _parse_page(text: str, content_type: str, address: str, normal: str, version: str | None) -> list[IndexFile]:
    if "json" in content_type:
        entries = [
            (file["filename"], file["url"], file.get("hashes", {}).get("sha256"), file.get("yanked", False))
            for file in json.loads(text).get("files", [])
        ]
    else:
        parser = _Links()
        parser.feed(text)
        entries = [(*_link(href), yanked) for href, yanked in parser.links]
    files = []
    for name, url, digest, yanked in entries:
        parsed = _parse_name(name)
        # A withdrawn file is for those only who ask for its very version.
        if parsed is not None and parsed[0] == normal and (version is not None or yanked is False):
            files.append(IndexFile(name, urljoin(address, url), *parsed[1:], digest))
    return files


def _link(href: str) -> tuple[str, str, str | None]:
    url, fragment = urldefrag(href)
    digest = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else None
    return unquote(urlsplit(url).path.rpartition("/")[2]), url, digest


class _Links(HTMLParser):
    """The links of a page, each with whether it is withdrawn."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[tuple[str, bool]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "a" and attributes.get("href"):
            self.links.append((attributes["href"] or "", "data-yanked" in attributes))


def _parse_name(name: str) -> tuple[str, Version, bool, bool] | None:
    """Normal name, version, is a wheel, is for any platform; None for files of other kinds."""
    try:
        if name.endswith(".whl"):
            distribution, version, _, tags = parse_wheel_filename(name)
            return distribution, version, True, any(tag.platform == "any" for tag in tags)
        if _SDIST.search(name):
            distribution, version = parse_sdist_filename(_SDIST.sub(".tar.gz", name))
            return distribution, version, False, True
    except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
        pass
    return None


def _not_found(distribution: str, version: str | None, found: list[IndexFile], configuration: PipConfiguration) -> str:
    places = ", ".join(re.sub(r"(?<=://)[^/@]*@", "", index) for index in configuration.indexes) or "find-links only"
    if not found:
        return f"no distribution named {distribution!r} is installed, or on the package index ({places})"
    known = ", ".join(str(known) for known in sorted({file.version for file in found})[-8:])
    return f"{distribution} has no version {version} on the package index ({places}); the newest are {known}"
