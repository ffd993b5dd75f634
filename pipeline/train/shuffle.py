"""A corpus of any size in a new seeded order each epoch, in bounded memory."""

import dataclasses
import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zstandard

from pipeline.common.corpus import read_columns
from pipeline.common.errors import UserError
from pipeline.common.files import ZSTD_LEVEL
from pipeline.common.progress import Progress

logger = logging.getLogger(__name__)

PIECE_ROWS = 2_000
GROUP_PIECES = 128

Row = tuple[str, ...]


@dataclass(frozen=True)
class ReadingPosition:
    """Where reading stands: `row` rows of group `group` of epoch `epoch` (all from 0) have been read."""

    epoch: int = 0
    group: int = 0
    row: int = 0


class ShuffledCorpus:
    """Rows of files that belong together (source, target, alignments), endlessly, shuffled anew for every epoch.

    The corpus is cut once into pieces of 2,000 rows, compressed one by one into a single file. For each epoch the
    pieces are put into random order and taken in groups of 128; the rows of a group are shuffled in memory. So at most
    256,000 rows are held, and any position is reached again by loading one group. The order depends on nothing but
    the seed, the epoch and the number of rows.
    """

    def __init__(
        self,
        name: str,
        paths: tuple[Path, ...],
        folder: Path,
        seed: tuple[int, ...],
        interruption_point: Callable[[], None] = lambda: None,
    ) -> None:
        """Reads and checks the files once, calling `interruption_point`, which may raise, now and then.

        Raises UserError when they are empty, damaged or of unequal length.
        """
        self.name, self.paths, self.seed = name, paths, seed
        self.columns = len(paths)
        self.position = ReadingPosition()
        self.rows = 0
        self._file = folder / f"{name}.shuffle.zst"
        self._frames: list[tuple[int, int, int]] = []  # offset, size in bytes, rows
        self._rows_before = 0  # rows of this epoch in the groups before the current one
        self._group: list[Row] | None = None
        self._cut_into_pieces(interruption_point)

    def __iter__(self) -> Iterator[Row]:
        return self

    def __next__(self) -> Row:
        """The next row. `position` then stands behind it, at the beginning of the next epoch if it was the last."""
        group = self._loaded_group()
        position = self.position
        row = group[position.row]
        if position.row + 1 < len(group):
            self.position = dataclasses.replace(position, row=position.row + 1)
            return row
        self._group = None
        if (position.group + 1) * GROUP_PIECES < len(self._frames):
            self.position = ReadingPosition(position.epoch, position.group + 1)
            self._rows_before += len(group)
        else:
            self.position = ReadingPosition(position.epoch + 1)
            self._rows_before = 0
        return row

    @property
    def epochs(self) -> float:
        """Passes over the corpus so far, with the fraction of the current one."""
        return self.position.epoch + (self._rows_before + self.position.row) / self.rows

    def seek(self, position: ReadingPosition) -> None:
        """Go on reading behind a position that was noted earlier."""
        self.position, self._group = position, None
        pieces = self._epoch_pieces()[: position.group * GROUP_PIECES]
        self._rows_before = sum(self._frames[piece][2] for piece in pieces)

    def close(self) -> None:
        """Remove the file of pieces."""
        self._file.unlink(missing_ok=True)

    def _epoch_pieces(self) -> list[int]:
        order: list[int] = self._random(self.position.epoch).permutation(len(self._frames)).tolist()
        return order

    def _random(self, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([*self.seed, *numbers])

    def _loaded_group(self) -> list[Row]:
        if self._group is None:
            first = self.position.group * GROUP_PIECES
            rows = [row for piece in self._epoch_pieces()[first : first + GROUP_PIECES] for row in self._piece(piece)]
            order = self._random(self.position.epoch, self.position.group).permutation(len(rows))
            self._group = [rows[index] for index in order]
        return self._group

    def _piece(self, number: int) -> list[Row]:
        offset, size, rows = self._frames[number]
        with self._file.open("rb") as file:
            file.seek(offset)
            text = zstandard.ZstdDecompressor().decompress(file.read(size)).decode("utf-8")
        lines = iter(text.split("\n"))
        return [tuple(next(lines) for _ in range(self.columns)) for _ in range(rows)]

    def _cut_into_pieces(self, interruption_point: Callable[[], None]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        progress = Progress(f"reading the corpus {self.name}", "pairs")
        compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        with self._file.open("wb") as file:
            lines = io.StringIO()
            held = 0

            def write_piece() -> None:
                frame = compressor.compress(lines.getvalue().encode("utf-8"))
                self._frames.append((file.tell(), len(frame), held))
                file.write(frame)
                progress.add(held)
                interruption_point()
                lines.seek(0)
                lines.truncate()

            for row in read_columns(*self.paths):
                lines.write("\n".join(row) + "\n")
                held += 1
                if held == PIECE_ROWS:
                    write_piece()
                    held = 0
            if held:
                write_piece()
        self.rows = sum(frame[2] for frame in self._frames)
        if not self.rows:
            raise UserError(f"the corpus {self.name} is empty: {self.paths[0]} has no lines")
