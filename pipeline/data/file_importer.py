"""`file_<path>`: text files of this machine, one sentence per line, one file for each language.

`[LANG]` in the path stands for the language. The path may be relative to the current directory and may hold `~` and
environment variables (`$DATA`). Files are plain, gzip or zstd, told apart by their content.
"""

import os
import re
from pathlib import Path

from pipeline.common.corpus import read_columns
from pipeline.common.errors import UserError
from pipeline.common.files import count_lines
from pipeline.data.source import Source

LANGUAGE_PLACE = "[LANG]"


def open_source(rest: str, languages: tuple[str, ...], folder: Path) -> Source:
    """Open `file_<rest>` for one or more languages; `folder` is not used.

    Raises UserError when a file is absent or damaged, when the sides differ in length, and when a variable is not set.
    """
    dataset = f"file_{rest}"
    paths = [Path(expand(place, dataset)) for place in places(rest, languages, dataset)]
    return open_files(paths, languages, dataset, {"files": [str(path) for path in paths]})


def places(rest: str, languages: tuple[str, ...], dataset: str) -> list[str]:
    """One path or URL for each language. Raises UserError when several languages would be read from one file."""
    if LANGUAGE_PLACE not in rest and len(languages) > 1:
        raise UserError(f"data set {dataset} must have {LANGUAGE_PLACE} where the language stands in the file's name")
    return [rest.replace(LANGUAGE_PLACE, language) for language in languages]


def expand(path: str, dataset: str) -> str:
    """The path with `~` and environment variables replaced. Raises UserError naming a variable that is not set."""
    for braced, plain in re.findall(r"\$(?:\{(\w+)\}|([A-Za-z_]\w*))", path):
        if (braced or plain) not in os.environ:
            raise UserError(f"data set {dataset}: the environment variable {braced or plain} is not set")
    return str(Path(os.path.expandvars(path)).expanduser())


def open_files(paths: list[Path], languages: tuple[str, ...], dataset: str, origin: dict[str, object]) -> Source:
    """Files that belong together as a source. Raises UserError when they are not of equal length."""
    lines = [count_lines(path) for path in paths]
    if len(set(lines)) > 1:
        sides = " and ".join(f"{count:,} lines in {language}" for language, count in zip(languages, lines, strict=True))
        raise UserError(f"data set {dataset} has {sides}: line N of one side must be the translation of line N")
    return Source(rows=read_columns(*paths), total=lines[0], origin=dict(origin))
