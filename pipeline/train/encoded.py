"""A corpus that is encoded once, for trainings that meet every row in the same form each epoch."""

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pipeline.common.errors import UserError
from pipeline.common.files import read_json, write_json
from pipeline.train import shuffle
from pipeline.train.encoding import EncodedRows
from pipeline.train.ragged import Ints, Ragged
from pipeline.train.shuffle import Corpus, Row, read_pieces
from pipeline.train.workers import EncodingWorkers

logger = logging.getLogger(__name__)


class EncodedCorpus(Corpus[Ints]):
    """A corpus as ids in files that are mapped into memory; its rows come in the order of `TextCorpus`.

    What an earlier start of the same training encoded is used again while the corpus files have not changed.
    """

    def __init__(
        self,
        name: str,
        paths: tuple[Path, ...],
        folder: Path,
        seed: tuple[int, ...],
        workers: EncodingWorkers,
        interruption_point: Callable[[], None] = lambda: None,
    ) -> None:
        """Reads, checks and encodes the files. Raises UserError as `TextCorpus` and the encoder do."""
        super().__init__(name, paths, seed)
        self._folder = folder / f"{name}.encoded"
        wanted = {"points": workers.encoder.aligned, "distributions": workers.encoder.top_k > 0}
        self._columns = ("src", "trg", *(column for column, holds in wanted.items() if holds))
        self._dtype = workers.encoder.dtype
        index = self._folder / "index.json"
        identity = {"encoder": workers.encoder.digest(), "files": [_state(path) for path in paths]}
        known = read_json(index) if index.exists() else {}
        if known.get("identity") != identity:
            self.close()
            known = {"identity": identity, "pieces": self._encode(workers, interruption_point)}
            write_json(index, known)
        self._set_pieces(known["pieces"])
        self._encoded = EncodedRows(**{column: self._mapped(column) for column in self._columns})

    def take(self, count: int) -> EncodedRows:
        rows: EncodedRows = super().take(count)
        return rows

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _load_group(self, pieces: list[int], random: np.random.Generator) -> Ints:
        rows = np.concatenate([np.arange(self._starts[piece], self._starts[piece + 1]) for piece in pieces])
        return rows[random.permutation(len(rows))]

    def _rows_of(self, parts: list[Ints]) -> EncodedRows:
        return self._encoded.take(np.concatenate(parts))

    def _encode(self, workers: EncodingWorkers, interruption_point: Callable[[], None]) -> list[int]:
        self._folder.mkdir(parents=True)
        pieces: list[int] = []
        with _Columns(self._folder, self._columns) as columns:
            for rows in workers.encode_all(self._tasks(interruption_point)):
                columns.write([getattr(rows, column) for column in self._columns])
                pieces.append(len(rows))
        return pieces

    def _tasks(self, interruption_point: Callable[[], None]) -> Iterator[tuple[list[Row], tuple[int, ...]]]:
        for rows in read_pieces(self.name, self.paths, interruption_point):
            yield rows, ()

    def _mapped(self, column: str) -> Ragged:
        return Ragged(_map(self._folder / f"{column}.ids", self._dtype), _map(self._folder / f"{column}.offsets", "i8"))


class _Columns:
    """Files of ids, and of offsets into them, for each column."""

    def __init__(self, folder: Path, columns: tuple[str, ...]) -> None:
        self._files = [
            ((folder / f"{name}.ids").open("wb"), (folder / f"{name}.offsets").open("wb")) for name in columns
        ]
        self._written = [0] * len(columns)
        for _, offsets in self._files:
            np.zeros(1, np.int64).tofile(offsets)

    def __enter__(self) -> "_Columns":
        return self

    def __exit__(self, *_: object) -> None:
        for files in self._files:
            for file in files:
                file.close()

    def write(self, columns: list[Ragged]) -> None:
        for number, (column, (ids, offsets)) in enumerate(zip(columns, self._files, strict=True)):
            _write(ids, column.flat)
            _write(offsets, column.offsets[1:] + self._written[number])
            self._written[number] += len(column.flat)


def _write(file: BinaryIO, values: np.ndarray[Any, Any]) -> None:
    file.write(np.ascontiguousarray(values).data)


def _map(path: Path, dtype: Any) -> np.ndarray[Any, Any]:
    if path.stat().st_size == 0:  # no row has anything: mapping nothing is an error
        return np.zeros(0, dtype)
    return np.asarray(np.memmap(path, dtype, "r"))


def _state(path: Path) -> list[Any]:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    return [str(path.resolve()), status.st_size, status.st_mtime_ns, shuffle.PIECE_ROWS]
