"""The first lines of artifacts that are text, both sides of a corpus beside each other."""

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import zstandard

from pipeline.common.errors import UserError
from pipeline.common.files import open_binary

LINES = 12
_BYTES = 1 << 16  # that are read of a file, decompressed
_LONGEST = 400  # characters of a line
_JSON = 1 << 18  # a JSON file of up to so many bytes is shown laid out


@dataclass(frozen=True)
class Preview:
    """Rows of cells: a file's lines, or those of two files that belong together. `names`: of the files."""

    names: Sequence[str]
    rows: Sequence[Sequence[str]]
    more: bool  # there is more in the files than is shown


def previews(files: Mapping[str, Path], languages: Sequence[str]) -> list[Preview]:
    """Previews of those files that are text, by name; `languages` are the source and the target, where there are."""
    found = []
    partners = {name: partner for name in files if (partner := _partner(name, files, languages))}
    targets = set(partners.values())
    for name, path in files.items():
        if name in targets:
            continue
        group = [(name, path)]
        if partner := partners.get(name):
            group.append((partner, files[partner]))
        sides = [first_lines(file) for _, file in group]
        if any(side is None for side in sides):
            continue
        known = [side for side in sides if side is not None]
        length = max(len(lines) for lines, _ in known)
        if length:
            rows = [[lines[row] if row < len(lines) else "" for lines, _ in known] for row in range(length)]
            found.append(Preview([member for member, _ in group], rows, any(more for _, more in known)))
    return found


def _partner(name: str, files: Mapping[str, Path], languages: Sequence[str]) -> str | None:
    """The other side of a corpus: the file of the same name but for its language. The source comes first."""
    if len(languages) != 2:
        return None
    source, target = languages
    for ending in (".zst", ".gz", ""):
        if name.endswith(f".{source}{ending}"):
            other = f"{name.removesuffix(f'.{source}{ending}')}.{target}{ending}"
            return other if other in files and other != name else None
    return None


def first_lines(path: Path, count: int = LINES) -> tuple[list[str], bool] | None:
    """A file's first lines, decompressed, and whether there are more. None when it is no text or cannot be read."""
    try:
        with open_binary(path) as file:
            data = file.read(_BYTES)
            more = bool(file.read(1))
    except (OSError, UserError, EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError):
        return None
    if b"\0" in data:
        return None
    if more:
        data = data[: data.rfind(b"\n") + 1] or data[:_LONGEST]
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        if not (more and error.start > len(data) - 4):
            return None
        text = data[: error.start].decode("utf-8")
    if path.suffix == ".json" and not more and len(data) < _JSON:
        text = _laid_out(text)
        count *= 4
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    shown = [line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…" for line in lines[:count]]
    return shown, more or len(lines) > count


def _laid_out(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text
