"""Corpora mixed as the stages of a curriculum ask, in chunks of rows, from any position on."""

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.train.curriculum import Stage, describe_stage, next_corpus
from pipeline.train.encoding import EncodedRows
from pipeline.train.shuffle import Corpus, ReadingPosition, Row

logger = logging.getLogger(__name__)

_CHUNK_ROWS = 512


@dataclass(frozen=True)
class DataPosition:
    """Where the stream stands: in which stage, behind which rows of each corpus and which chunk the current pool
    begins, which pool it is, and how many of its updates were consumed.
    """

    stage: int = 0
    taken: dict[str, int] = field(default_factory=dict)
    readers: dict[str, ReadingPosition] = field(default_factory=dict)
    chunk: int = 0
    pool: int = 0
    update: int = 0

    def to_yaml(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_yaml(cls, values: dict[str, Any]) -> "DataPosition":
        readers = {name: ReadingPosition(**position) for name, position in values["readers"].items()}
        return cls(**{**values, "readers": readers})


@dataclass(frozen=True)
class Chunk:
    """At most 512 rows, as text or encoded, and where the stream stands before them.

    `epochs` are those of the main corpus before and after. `last` tells that an epoch or a stage ends with them.
    """

    rows: list[Row] | EncodedRows
    position: DataPosition
    epochs: tuple[float, float]
    last: bool


class Mixture:
    """Rows of several corpora by the weights of each stage. The first corpus is the main one, which counts epochs."""

    def __init__(self, corpora: Sequence[Corpus[Any]], stages: Sequence[Stage]) -> None:
        self.corpora = {corpus.name: corpus for corpus in corpora}
        self.main, self.stages = corpora[0], stages

    def chunks(self, position: DataPosition) -> Iterator[Chunk]:
        """Chunks from a position on, without end. None reaches over the end of an epoch or a stage."""
        stage, taken, number = position.stage, Counter(position.taken), position.chunk
        for name, corpus in self.corpora.items():
            corpus.seek(position.readers.get(name, ReadingPosition()))
        while True:
            readers = {name: corpus.position for name, corpus in self.corpora.items()}
            position = DataPosition(stage, dict(taken), readers, number)
            before = self.main.epochs
            epoch = self.main.position.epoch
            names = self._choose(self.stages[stage], taken)
            counts = Counter(names)
            rows = _interleaved(names, {name: self.corpora[name].take(count) for name, count in counts.items()})
            taken += counts
            number += 1
            until = self.stages[stage].until
            stage_ends = until is not None and self.corpora[until[0]].position.epoch >= until[1]
            epoch_ends = self.main.position.epoch > epoch
            # An epoch that has ended is a whole number, whatever fractions add up to.
            yield Chunk(rows, position, (before, self.main.epochs), stage_ends or epoch_ends)
            if stage_ends:
                stage, taken = stage + 1, Counter()
                logger.info(f"training: now reading {describe_stage(self.stages[stage])}")

    def _choose(self, stage: Stage, taken: Mapping[str, int]) -> list[str]:
        """The corpus of each row of the next chunk."""
        names, sofar = [], Counter(taken)
        for _ in range(_CHUNK_ROWS):
            names.append(next_corpus(stage.weights, sofar) if len(stage.weights) > 1 else next(iter(stage.weights)))
            sofar[names[-1]] += 1
        ending = {self.main.name}
        if stage.until and self.corpora[stage.until[0]].position.epoch + 1 >= stage.until[1]:
            ending.add(stage.until[0])
        for name in ending:
            places = [place for place, other in enumerate(names) if other == name]
            left = self.corpora[name].rows_left
            if len(places) >= left:
                names = names[: places[left - 1] + 1]
        return names


def _interleaved(names: list[str], taken: Mapping[str, Any]) -> Any:
    """The rows taken from each corpus, in the order in which the corpora are named."""
    if len(taken) == 1:
        return taken[names[0]]
    if isinstance(taken[names[0]], list):
        rows = {name: iter(part) for name, part in taken.items()}
        return [next(rows[name]) for name in names]
    numbers = {name: number for number, name in enumerate(taken)}
    order = np.empty(len(names), np.int64)
    order[np.argsort([numbers[name] for name in names], kind="stable")] = np.arange(len(names))
    return EncodedRows.concatenated(list(taken.values())).take(order)
