"""What the tests of data sets share: a web server on this machine, and small distributions with catalogues."""

import io
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import polib
import pytest
from dataset_step import DatasetStep

Messages = dict[str, str]


@pytest.fixture
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DatasetStep:
    """The import step in a folder of its own, without the user's cache."""
    monkeypatch.delenv("LIMBECK_CACHE", raising=False)
    return DatasetStep(tmp_path)


@pytest.fixture
def make() -> SimpleNamespace:
    """Makers of catalogues and distributions: `make.po({"One": "Eins"})`, `make.wheel({name: bytes})` …"""
    return SimpleNamespace(catalogue=_catalogue, po=_po, mo=_mo, wheel=_wheel, sdist=_sdist, install=_install)


PLURALS = {
    "de": "nplurals=2; plural=(n != 1);",
    "fr": "nplurals=2; plural=(n > 1);",
    "ja": "nplurals=1; plural=0;",
    "ru": "nplurals=3; plural=(n%10==1 && n%100!=11 ? 0 : n%10>=2 && n%10<=4 && (n%100<10 || n%100>=20) ? 1 : 2);",
}


def _catalogue(messages: Messages, language: str = "de") -> polib.POFile:
    """A catalogue of simple messages; tests add entries of other kinds to it."""
    file = polib.POFile()
    file.metadata = {
        "Content-Type": "text/plain; charset=UTF-8",
        "Language": language,
        "Plural-Forms": PLURALS.get(language, PLURALS["de"]),
    }
    for msgid, msgstr in messages.items():
        file.append(polib.POEntry(msgid=msgid, msgstr=msgstr))
    return file


def _po(messages: Messages | polib.POFile, language: str = "de") -> bytes:
    file = messages if isinstance(messages, polib.POFile) else _catalogue(messages, language)
    return str(file).encode()


def _mo(messages: Messages | polib.POFile, language: str = "de") -> bytes:
    file = messages if isinstance(messages, polib.POFile) else _catalogue(messages, language)
    return bytes(file.to_binary())


def _wheel(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def _sdist(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def _install(folder: Path, name: str, version: str, files: dict[str, bytes]) -> None:
    """Lay a distribution out in a folder as pip does; the folder must be on sys.path."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in files))
