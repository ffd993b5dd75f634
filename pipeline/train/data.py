"""The stream of training updates: corpora read, mixed, encoded and batched, from any position on."""

import dataclasses
import logging
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from queue import Queue
from typing import Any, TypeVar

import numpy as np

from pipeline.common.errors import UserError
from pipeline.train.batches import Batch, Ints, PairSizes, Pool, grouped
from pipeline.train.curriculum import Stage, next_corpus
from pipeline.train.encoding import EncodedPair, Encoder
from pipeline.train.options import TrainingOptions
from pipeline.train.shuffle import ReadingPosition, Row, ShuffledCorpus

logger = logging.getLogger(__name__)

_CHUNK_ROWS = 512
_END = object()

Item = TypeVar("Item")


@dataclass(frozen=True)
class DataPosition:
    """Where the stream stands: in which stage, behind which rows of each corpus the current pool begins, which pool it
    is, and how many of its updates were consumed.
    """

    stage: int = 0
    taken: dict[str, int] = field(default_factory=dict)
    readers: dict[str, ReadingPosition] = field(default_factory=dict)
    pool: int = 0
    update: int = 0

    def to_yaml(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_yaml(cls, values: dict[str, Any]) -> "DataPosition":
        readers = {name: ReadingPosition(**position) for name, position in values["readers"].items()}
        return cls(**{**values, "readers": readers})


@dataclass(frozen=True)
class Update:
    """What one update of the parameters sees: this process's micro-batches (none when there are fewer pairs than
    processes), the sizes of those of all processes together, and where the stream stands behind them.
    """

    batches: Sequence[Batch]
    sizes: PairSizes
    epochs: float
    position: DataPosition


class TrainingData:
    """Endless updates from one or more corpora, following a curriculum.

    Pairs are read into pools of `maxi-batch` updates (fewer at first, so that training begins at once), encoded and
    packed by length; the batches of a pool are shuffled. A pool ends with the epoch of the main corpus (the first one)
    and with a stage. Everything random is derived from the seed and the position, so a stream that is
    begun at the position of an update goes on exactly behind it. One thread prepares the next pool while the current
    one is consumed.

    Several processes, each told its `process` (rank, how many), read the same stream and take different pairs of each
    update; together they see the pairs that one process would see.
    """

    def __init__(
        self,
        corpora: Sequence[ShuffledCorpus],
        stages: Sequence[Stage],
        encoder: Encoder,
        options: TrainingOptions,
        process: tuple[int, int] = (0, 1),
    ) -> None:
        self.process = process
        self.corpora = {corpus.name: corpus for corpus in corpora}
        self.main = corpora[0]
        self.stages, self.encoder, self.options = stages, encoder, options
        self._stage = 0
        self._taken: dict[str, int] = {}
        self._left_out = self._read = 0

    def updates(self, position: DataPosition) -> Generator[Update, None, None]:
        """Updates from `position` on. Raises UserError when an epoch holds no pair that can be used."""
        consumed = position.update
        for prepared in in_background(self._prepared_pools(position)):
            for index in range(consumed, len(prepared.groups)):
                yield prepared.update(index, self.process)
            consumed = 0

    def _prepared_pools(self, position: DataPosition) -> Iterator["_PreparedPool"]:
        self._stage, self._taken = position.stage, dict(position.taken)
        for name, corpus in self.corpora.items():
            corpus.seek(position.readers.get(name, ReadingPosition()))
        number = position.pool
        while True:
            start = self._position(number)
            epochs_before = self.main.epochs
            pool = self._read_pool(number)
            groups = self._pack(pool, number)
            yield _PreparedPool(pool, groups, start, epochs_before, self.main.epochs)
            number += 1

    def _position(self, number: int) -> DataPosition:
        readers = {name: corpus.position for name, corpus in self.corpora.items()}
        return DataPosition(self._stage, dict(self._taken), readers, number)

    def _read_pool(self, number: int) -> Pool:
        o = self.options
        # 32 updates at first, twice as many each time: the first one need not wait for a large pool.
        wanted = o.mini_batch_words * min(o.maxi_batch, 32 << min(number, 20))
        pairs: list[EncodedPair] = []
        positions, chunk, boundary = 0, 0, False
        while positions < wanted and not boundary:
            rows, boundary = self._read_rows(_CHUNK_ROWS)
            for pair in self.encoder.encode(rows, (o.seed, number, chunk)):
                if pair is not None:
                    pairs.append(pair)
                    positions += max(len(pair.src), len(pair.trg))
                else:
                    self._left_out += 1
            self._read += len(rows)
            chunk += 1
            if boundary:
                self._report_left_out()
        return Pool(
            [pair.src for pair in pairs],
            [pair.trg for pair in pairs],
            [pair.points for pair in pairs] if o.guided_alignment else None,
        )

    def _read_rows(self, count: int) -> tuple[list[Row], bool]:
        """At most `count` rows in the stage's mixture, and whether an epoch of the main corpus or the stage ended."""
        rows: list[Row] = []
        while len(rows) < count:
            stage = self.stages[self._stage]
            name = next_corpus(stage.weights, self._taken)
            epoch = self.main.position.epoch
            rows.append(next(self.corpora[name]))
            self._taken[name] = self._taken.get(name, 0) + 1
            ended = stage.until is not None and self.corpora[stage.until[0]].position.epoch >= stage.until[1]
            if ended:
                self._stage, self._taken = self._stage + 1, {}
                logger.info(f"training: now reading {describe_stage(self.stages[self._stage])}")
            if ended or self.main.position.epoch > epoch:
                return rows, True
        return rows, False

    def _pack(self, pool: Pool, number: int) -> list[Sequence[Ints]]:
        o = self.options
        micro_batches = pool.pack(o.mini_batch_words // o.optimizer_delay, -(-o.mini_batch // o.optimizer_delay))
        order = np.random.default_rng([o.seed, number]).permutation(len(micro_batches))
        return list(grouped([micro_batches[index] for index in order], o.optimizer_delay))

    def _report_left_out(self) -> None:
        if self._left_out == self._read:
            raise UserError(
                f"none of the {self._read:,} pairs read from {', '.join(self.corpora)} can be used: each is empty on "
                f"one side or longer than max-length {self.options.max_length} pieces"
            )
        if self._left_out:
            logger.info(
                f"training: left out {self._left_out:,} of {self._read:,} pairs, empty or longer than "
                f"{self.options.max_length} pieces"
            )
        self._left_out = self._read = 0


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


def describe_stage(stage: Stage) -> str:
    """`0.6 original and 0.4 backtranslated until 2 epochs of backtranslated`."""
    mixture = " and ".join(f"{weight:g} {name}" for name, weight in stage.weights.items())
    until = f" until {stage.until[1]} epochs of {stage.until[0]}" if stage.until else ""
    return mixture.removeprefix("1 ") + until


def in_background(items: Iterator[Item]) -> Generator[Item, None, None]:
    """Items made one ahead by a thread. What the thread raises is raised here; closing the iterator ends the thread."""
    made: Queue[tuple[str, Any]] = Queue()
    wanted = threading.Semaphore(1)
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
        thread.join()
