"""The stream of training updates: corpora read, mixed, encoded and batched, from any position on."""

import contextlib
import dataclasses
import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import Queue
from typing import Any, TypeVar

import numpy as np

from pipeline.common.errors import UserError
from pipeline.train.batches import Batch, PairSizes, Pool, grouped
from pipeline.train.curriculum import Stage
from pipeline.train.encoded import EncodedCorpus
from pipeline.train.encoding import EncodedRows
from pipeline.train.mixture import Chunk, DataPosition, Mixture
from pipeline.train.options import TrainingOptions
from pipeline.train.ragged import Ints
from pipeline.train.shuffle import Corpus, TextCorpus
from pipeline.train.workers import EncodingWorkers, Task

logger = logging.getLogger(__name__)

_UPDATES_AHEAD = 4
_ROUND_CHUNKS = 4  # that each process encodes before all exchange theirs
_SECONDS_TO_END = 10.0
_END = object()

Item = TypeVar("Item")
Exchange = Callable[[Any], list[Any]]


@dataclass(frozen=True)
class Update:
    """What one update of the parameters sees: this process's micro-batches (none when there are fewer pairs than
    processes), the sizes of those of all processes together, and where the stream stands behind them.
    """

    batches: Sequence[Batch]
    sizes: PairSizes
    epochs: float
    position: DataPosition


def open_corpora(
    named: Mapping[str, tuple[Path, ...]],
    folder: Path,
    seed: int,
    workers: EncodingWorkers,
    interruption_point: Callable[[], None] = lambda: None,
) -> list[Corpus[Any]]:
    """Corpora by name: as text when encoding has something random in it, otherwise encoded once and for all.

    `folder` takes their copies; processes that train together have one each. Raises UserError for corpora that are
    empty, damaged or of unequal sides.
    """
    seeds = {name: (seed, number) for number, name in enumerate(named)}
    if workers.encoder.varies:
        return [TextCorpus(name, paths, folder, seeds[name], interruption_point) for name, paths in named.items()]
    return [
        EncodedCorpus(name, paths, folder, seeds[name], workers, interruption_point) for name, paths in named.items()
    ]


class TrainingData:
    """Endless updates from one or more corpora, following a curriculum.

    Pairs are read in chunks of 512, encoded (unless the corpora are) by `workers`, and collected into pools of
    `maxi-batch` updates (fewer at first, so that training begins at once), which are packed by length; the batches of a
    pool are shuffled. A pool ends with the epoch of the main corpus (the first one) and with a stage. Everything random
    is derived from the seed and the position, so a stream that is begun at the position of an update goes on exactly
    behind it, whatever the number of workers. One thread prepares the next pool while the current one is consumed,
    another the next few updates; `pinned` puts these where a GPU can fetch them by itself.

    Several processes, each told its `process` (rank, how many), read the same stream and take different pairs of each
    update; together they see the pairs that one process would see. With `exchange`, which gives to all what each gave,
    in the order of ranks, and which is called in a thread, each encodes only its part of the chunks.
    """

    def __init__(
        self,
        corpora: Sequence[Corpus[Any]],
        stages: Sequence[Stage],
        workers: EncodingWorkers,
        options: TrainingOptions,
        process: tuple[int, int] = (0, 1),
        exchange: Exchange | None = None,
        pinned: bool = False,
    ) -> None:
        self.corpora, self.stages, self.workers, self.options = corpora, stages, workers, options
        self.mixture = Mixture(corpora, stages)
        self.process, self.exchange, self.pinned = process, exchange, pinned
        self._stopped = threading.Event()

    def updates(self, position: DataPosition) -> Generator[Update, None, None]:
        """Updates from `position` on. Raises UserError when an epoch holds no pair that can be used."""
        self._stopped.clear()
        updates = in_background(self._updates(position), _UPDATES_AHEAD)
        try:
            yield from updates
        finally:
            self._stopped.set()
            updates.close()
            self.workers.close()

    @property
    def augmentation(self) -> dict[str, float]:
        """The changes that are made to the text, by name, and their chances."""
        augmenter = self.workers.encoder.augmenter
        return augmenter.augmentation.to_yaml() if augmenter else {}

    def remove_copies(self) -> None:
        """Remove what was written beside the corpora: after the last update."""
        for corpus in self.corpora:
            corpus.close()

    def _updates(self, position: DataPosition) -> Iterator[Update]:
        consumed = position.update
        with contextlib.closing(in_background(self._pools(position))) as pools:
            for prepared in pools:
                for index in range(consumed, len(prepared.groups)):
                    update = prepared.update(index, self.process)
                    if self.pinned:
                        update = dataclasses.replace(update, batches=[batch.pinned() for batch in update.batches])
                    yield update
                consumed = 0

    def _pools(self, position: DataPosition) -> Iterator["_PreparedPool"]:
        number = position.pool
        left_out = read = 0
        with contextlib.closing(self._encoded_chunks(position)) as chunks:
            while held := self._read_pool(chunks, number):
                rows = EncodedRows.concatenated([encoded for _, encoded in held])
                usable = rows.usable()
                left_out, read = left_out + len(rows) - len(usable), read + len(rows)
                (first, _), (last, _) = held[0], held[-1]
                if last.last:
                    self._report_left_out(left_out, read)
                    left_out = read = 0
                pool = Pool(usable.src, usable.trg, usable.points, usable.distributions)
                start = dataclasses.replace(first.position, pool=number)
                yield _PreparedPool(pool, self._pack(pool, number), start, first.epochs[0], last.epochs[1])
                number += 1

    def _read_pool(self, chunks: Iterator[tuple[Chunk, EncodedRows]], number: int) -> list[tuple[Chunk, EncodedRows]]:
        """The chunks of a pool; none when the stream was closed."""
        # 32 updates at first, twice as many each time: the first one need not wait for a large pool.
        wanted = self.options.mini_batch_words * min(self.options.maxi_batch, 32 << min(number, 20))
        held, positions = [], 0
        for chunk, rows in chunks:
            if self._stopped.is_set():
                return []
            held.append((chunk, rows))
            positions += int(np.maximum(rows.src.lengths, rows.trg.lengths).sum())
            if positions >= wanted or chunk.last:
                return held
        return []

    def _encoded_chunks(self, position: DataPosition) -> Generator[tuple[Chunk, EncodedRows], None, None]:
        chunks = self.mixture.chunks(position)
        if not self.workers.encoder.varies:
            for chunk in chunks:
                assert isinstance(chunk.rows, EncodedRows)
                yield chunk, chunk.rows
            return
        if self.exchange:
            yield from self._shared_chunks(chunks, self.exchange)
            return
        waiting: deque[Chunk] = deque()
        with contextlib.closing(self.workers.encode_all(self._tasks(chunks, waiting, (0, 1)))) as encoded:
            for rows in encoded:
                yield waiting.popleft(), rows

    def _tasks(self, chunks: Iterator[Chunk], waiting: deque[Chunk], process: tuple[int, int]) -> Iterator[Task]:
        """Every so many-th chunk as a task for workers; all that are read are put among the waiting ones."""
        rank, processes = process
        while True:
            read = list(islice(chunks, processes))
            waiting.extend(read)
            rows = read[rank].rows
            assert isinstance(rows, list)
            yield rows, (self.options.seed, read[rank].position.chunk)

    def _shared_chunks(
        self, chunks: Iterator[Chunk], exchange: Exchange
    ) -> Generator[tuple[Chunk, EncodedRows], None, None]:
        """Chunks of which this process encodes its part and gets the others from those that do.

        Exchanges go on until one process has stopped, and that one takes part in one more to say so: none is left
        waiting for another. An error is everybody's.
        """
        waiting: deque[Chunk] = deque()
        encoded = self.workers.encode_all(self._tasks(chunks, waiting, self.process))
        ended = False
        try:
            while True:
                own: list[EncodedRows] = []
                refusal = None
                try:
                    own = list(islice(encoded, _ROUND_CHUNKS))
                except UserError as error:
                    refusal = str(error)
                given = exchange((self._stopped.is_set(), refusal, own))
                ended = any(stopped or refused for stopped, refused, _ in given)
                for _, refused, _ in given:
                    if refused:
                        raise UserError(refused)
                if ended:
                    return
                for number in range(_ROUND_CHUNKS):
                    for _, _, rows in given:
                        yield waiting.popleft(), rows[number]
        finally:
            encoded.close()
            if not ended:
                exchange((True, None, []))

    def _pack(self, pool: Pool, number: int) -> list[Sequence[Ints]]:
        o = self.options
        micro_batches = pool.pack(o.mini_batch_words // o.optimizer_delay, -(-o.mini_batch // o.optimizer_delay))
        order = np.random.default_rng([o.seed, number]).permutation(len(micro_batches))
        return list(grouped([micro_batches[index] for index in order], o.optimizer_delay))

    def _report_left_out(self, left_out: int, read: int) -> None:
        if left_out == read:
            names = ", ".join(corpus.name for corpus in self.corpora)
            raise UserError(
                f"none of the {read:,} pairs read from {names} can be used: each is empty on one side or longer than "
                f"max-length {self.options.max_length} pieces"
            )
        if left_out:
            logger.info(
                f"training: left out {left_out:,} of {read:,} pairs, empty or longer than "
                f"{self.options.max_length} pieces"
            )


@dataclass(frozen=True)
class _PreparedPool:
    pool: Pool
    groups: list[Sequence[Ints]]
    start: DataPosition
    epochs_before: float
    epochs_after: float

    def update(self, index: int, process: tuple[int, int]) -> Update:
        groups = self.groups[index]
        share = (index + 1) / len(self.groups)
        return Update(
            [self.pool.batch(rows) for rows in share_of_process(groups, *process)],
            sum((self.pool.sizes(rows) for rows in groups), PairSizes()),
            self.epochs_after if share == 1 else (1 - share) * self.epochs_before + share * self.epochs_after,
            dataclasses.replace(self.start, update=index + 1),
        )


def share_of_process(groups: Sequence[Ints], rank: int, processes: int) -> list[Ints]:
    """The rows of an update that one of several processes takes: whole micro-batches where they can be dealt out
    evenly, otherwise every so many-th row of each micro-batch.
    """
    if len(groups) % processes == 0:
        return list(groups[rank::processes])
    return [rows[rank::processes] for rows in groups if len(rows) > rank]


def in_background(items: Iterator[Item], ahead: int = 1) -> Generator[Item, None, None]:
    """Items made a few ahead by a thread. What the thread raises is raised here; closing the iterator closes `items`
    and ends the thread.
    """
    made: Queue[tuple[str, Any]] = Queue()
    wanted = threading.Semaphore(ahead)
    stopped = threading.Event()

    def work() -> None:
        try:
            while True:
                wanted.acquire()
                if stopped.is_set():
                    return
                item = next(items, _END)
                made.put(("item", item))
                if item is _END:
                    return
        except BaseException as error:
            made.put(("error", error))
        finally:
            if isinstance(items, Generator):
                with contextlib.suppress(Exception):  # another process may have gone, which is not of interest now
                    items.close()

    thread = threading.Thread(target=work, name="data", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = made.get()
            if kind == "error":
                raise value
            if value is _END:
                return
            wanted.release()
            yield value
    finally:
        stopped.set()
        wanted.release()
        # Without end only where another process is waited for that has gone.
        thread.join(_SECONDS_TO_END)
