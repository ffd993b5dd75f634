"""Parallel corpora: two files, read and written together, line by line."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

from pipeline.common.errors import UserError
from pipeline.common.files import LineWriter, read_lines

_END = object()


def read_columns(*paths: str | Path) -> Iterator[tuple[str, ...]]:
    """Yield one tuple per line of several files that belong together (source, target, alignments, scores …).

    Raises UserError when one file ends before the others, with its name and line.
    """
    rows = itertools.zip_longest(*map(read_lines, paths), fillvalue=_END)
    for number, row in enumerate(rows):
        if _END in row:
            ended = [value is _END for value in row]
            short, longer = paths[ended.index(True)], paths[ended.index(False)]
            raise UserError(
                f"{short} ends after {number} lines, but {longer} goes on: the files must be of equal length"
            )
        yield row  # type: ignore[misc]


def read_parallel(src_path: str | Path, trg_path: str | Path) -> Iterator[tuple[str, str]]:
    """Yield (source, target) sentence pairs; raises UserError when the two sides differ in length."""
    yield from read_columns(src_path, trg_path)  # type: ignore[misc]


class ColumnWriter:
    """Writes several files in step, one line each at a time."""

    def __init__(self, *paths: str | Path) -> None:
        self.writers = [LineWriter(path) for path in paths]

    @property
    def lines(self) -> int:
        return self.writers[0].lines

    def write(self, *row: str) -> None:
        if len(row) != len(self.writers):
            raise ValueError(f"{len(row)} values for {len(self.writers)} files")
        for writer, line in zip(self.writers, row, strict=True):
            writer.write(line)


@contextlib.contextmanager
def write_columns(*paths: str | Path) -> Iterator[ColumnWriter]:
    """Write files that belong together (the sides of a corpus): all get their names at the end, or none does."""
    writer = ColumnWriter(*paths)
    try:
        yield writer
        for column in writer.writers:
            column.close()
        for column in writer.writers:
            column.rename()
    except BaseException:
        for column in writer.writers:
            column.discard()
        raise
