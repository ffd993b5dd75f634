"""A corpus of any size in a new seeded order each epoch, in bounded memory."""

import dataclasses
import io
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import zstandard

from pipeline.common.corpus import read_columns
from pipeline.common.errors import UserError
from pipeline.common.files import ZSTD_LEVEL
from pipeline.common.progress import Progress
from pipeline.train.ragged import Ints

logger = logging.getLogger(__name__)

PIECE_ROWS = 2_000
GROUP_PIECES = 128

Row = tuple[str, ...]
Group = TypeVar("Group", list[Row], Ints)


@dataclass(frozen=True)
class ReadingPosition:
    """Where reading stands: `row` rows of group `group` of epoch `epoch` (all from 0) have been read."""

    epoch: int = 0
    group: int = 0
    row: int = 0


class Corpus(ABC, Generic[Group]):
    """Rows of files that belong together (source, target, alignments), endlessly, shuffled anew for every epoch.

    The corpus is cut once into pieces of 2,000 rows. For each epoch the pieces are put into random order and taken in
    groups of 128; the rows of a group are shuffled. So any position is reached again by loading one group. The order
    depends on nothing but the seed, the epoch and the number of rows.
    """

    def __init__(self, name: str, paths: tuple[Path, ...], seed: tuple[int, ...]) -> None:
        self.name, self.paths, self.seed = name, paths, seed
        self.position = ReadingPosition()
        self._starts = [0]  # the first row of each piece, and the number of rows
        self._rows_before = 0  # rows of this epoch in the groups before the current one
        self._group: Group | None = None

    @property
    def rows(self) -> int:
        return self._starts[-1]

    @property
    def epochs(self) -> float:
        """Passes over the corpus so far, with the fraction of the current one."""
        return self.position.epoch + (self._rows_before + self.position.row) / self.rows

    @property
    def rows_left(self) -> int:
        """Rows until the end of the epoch."""
        return self.rows - self._rows_before - self.position.row

    def seek(self, position: ReadingPosition) -> None:
        """Go on reading behind a position that was noted earlier."""
        self.position, self._group = position, None
        pieces = self._epoch_pieces()[: position.group * GROUP_PIECES]
        self._rows_before = sum(self._starts[piece + 1] - self._starts[piece] for piece in pieces)

    def take(self, count: int) -> Any:
        """The next `count` rows, of the next epoch too if this one has less."""
        parts: list[Group] = []
        while count:
            group = self._loaded_group()
            begin = self.position.row
            part = group[begin : begin + count]
            parts.append(part)
            count -= len(part)
            self._advance(len(part), len(group))
        return self._rows_of(parts)

    def close(self) -> None:
        """Remove what was written."""

    @abstractmethod
    def _load_group(self, pieces: list[int], random: np.random.Generator) -> Group:
        """The rows of some pieces, shuffled."""

    @abstractmethod
    def _rows_of(self, parts: list[Group]) -> Any:
        """What to give for parts of groups."""

    def _advance(self, count: int, group_rows: int) -> None:
        position = self.position
        if position.row + count < group_rows:
            self.position = dataclasses.replace(position, row=position.row + count)
            return
        self._group = None
        if (position.group + 1) * GROUP_PIECES < len(self._starts) - 1:
            self.position = ReadingPosition(position.epoch, position.group + 1)
            self._rows_before += group_rows
        else:
            self.position = ReadingPosition(position.epoch + 1)
            self._rows_before = 0

    def _loaded_group(self) -> Group:
        if self._group is None:
            first = self.position.group * GROUP_PIECES
            pieces = self._epoch_pieces()[first : first + GROUP_PIECES]
            self._group = self._load_group(pieces, self._random(self.position.epoch, self.position.group))
        return self._group

    def _epoch_pieces(self) -> list[int]:
        order: list[int] = self._random(self.position.epoch).permutation(len(self._starts) - 1).tolist()
        return order

    def _random(self, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([*self.seed, *numbers])

    def _set_pieces(self, rows: list[int]) -> None:
        self._starts = list(accumulate(rows, initial=0))
        if not self.rows:
            raise UserError(f"the corpus {self.name} is empty: {self.paths[0]} has no lines")


class TextCorpus(Corpus[list[Row]]):
    """A corpus as text: its pieces are compressed one by one into a single file, and 256,000 rows are in memory."""

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
        super().__init__(name, paths, seed)
        self._file = folder / f"{name}.shuffle.zst"
        self._frames: list[tuple[int, int]] = []  # offset and size in bytes
        self._cut_into_pieces(interruption_point)

    def take(self, count: int) -> list[Row]:
        rows: list[Row] = super().take(count)
        return rows

    def close(self) -> None:
        self._file.unlink(missing_ok=True)

    def _load_group(self, pieces: list[int], random: np.random.Generator) -> list[Row]:
        rows = [row for piece in pieces for row in self._piece(piece)]
        return [rows[index] for index in random.permutation(len(rows)).tolist()]

    def _rows_of(self, parts: list[list[Row]]) -> list[Row]:
        return parts[0] if len(parts) == 1 else [row for part in parts for row in part]

    def _piece(self, number: int) -> Iterator[Row]:
        offset, size = self._frames[number]
        with self._file.open("rb") as file:
            file.seek(offset)
            text = zstandard.ZstdDecompressor().decompress(file.read(size)).decode("utf-8")
        lines = iter(text.removesuffix("\n").split("\n"))
        return zip(*[lines] * len(self.paths), strict=True)

    def _cut_into_pieces(self, interruption_point: Callable[[], None]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        held = []
        with self._file.open("wb") as file:
            for rows in read_pieces(self.name, self.paths, interruption_point):
                text = io.StringIO()
                for row in rows:
                    text.write("\n".join(row) + "\n")
                frame = compressor.compress(text.getvalue().encode("utf-8"))
                self._frames.append((file.tell(), len(frame)))
                file.write(frame)
                held.append(len(rows))
        self._set_pieces(held)


def read_pieces(name: str, paths: tuple[Path, ...], interruption_point: Callable[[], None]) -> Iterator[list[Row]]:
    """The rows of a corpus, a piece at a time."""
    progress = Progress(f"reading the corpus {name}", "pairs")
    rows: list[Row] = []
    for row in read_columns(*paths):
        rows.append(row)
        if len(rows) == PIECE_ROWS:
            yield rows
            progress.add(len(rows))
            interruption_point()
            rows = []
    if rows:
        yield rows
        progress.add(len(rows))
