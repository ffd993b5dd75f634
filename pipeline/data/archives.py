"""Reading single members of a distribution: an installed one, a wheel or a source archive. Nothing of it is run."""

import contextlib
import importlib.metadata
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pipeline.common.errors import UserError


class Installed:
    """The files of a distribution of the running environment."""

    def __init__(self, distribution: importlib.metadata.Distribution) -> None:
        self._paths = {str(path): Path(str(path.locate())) for path in distribution.files or []}

    def sizes(self) -> dict[str, int]:
        """Bytes of each file by its name."""
        return {name: path.stat().st_size for name, path in self._paths.items() if path.is_file()}

    def extract(self, names: set[str], folder: Path) -> dict[str, Path]:
        """The paths of members; installed files are read where they lie."""
        return {name: self._paths[name] for name in names}


class Archive:
    """A wheel (zip) or a source distribution (tar, zip)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def sizes(self) -> dict[str, int]:
        """Bytes of each member that is a file, by its name. Raises UserError when the archive is damaged."""
        with self._errors():
            if zipfile.is_zipfile(self.path):
                with zipfile.ZipFile(self.path) as archive:
                    return {info.filename: info.file_size for info in archive.infolist() if not info.is_dir()}
            with tarfile.open(self.path) as archive:
                return {member.name: member.size for member in archive if member.isfile()}

    def extract(self, names: set[str], folder: Path) -> dict[str, Path]:
        """Write members to a folder under names of their own, and return their paths by member name."""
        paths: dict[str, Path] = {}
        with self._errors():
            for name, content in self._open(names):
                paths[name] = folder / f"{len(paths)}{Path(name).suffix}"
                with content, paths[name].open("wb") as file:
                    shutil.copyfileobj(content, file)
        return paths

    def _open(self, names: set[str]) -> Iterator[tuple[str, IO[bytes]]]:
        if zipfile.is_zipfile(self.path):
            with zipfile.ZipFile(self.path) as archive:
                for name in sorted(names):
                    yield name, archive.open(name)
            return
        with tarfile.open(self.path) as archive:
            for member in archive:
                if member.isfile() and member.name in names and (content := archive.extractfile(member)) is not None:
                    yield member.name, content

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
            raise UserError(f"{self.path} is not a sound wheel or source archive: {error}") from error
