"""Aligning corpora of any size: chunk by chunk, with what a sample of the whole corpus taught.

A corpus that fits into one chunk is trained on as a whole. From a larger one an evenly spread sample of one chunk's
size is trained on first. Its expected counts are prior knowledge for each chunk, which is then trained and aligned by
itself. So memory does not grow with the corpus, and no chunk depends on another: several processes can share them.
"""

import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Generic, TypeVar

from pipeline.align.bitext import NO_LIMIT, Bitext, BitextReader, Tokens
from pipeline.align.em import ITERATIONS, align
from pipeline.align.priors import Priors
from pipeline.align.symmetrize import Links, grow_diag_final_and
from pipeline.common.corpus import read_parallel
from pipeline.common.errors import UserError
from pipeline.common.files import count_lines
from pipeline.common.progress import Progress

CHUNK_CELLS = 60_000_000  # word pairs; they take about 30 bytes each
T = TypeVar("T", bound=Tokens)


class CorpusAligner(Generic[T]):
    """Aligns a parallel corpus. Afterwards `priors` holds the expected counts learnt, on top of those given, and `src`
    and `trg` the numbering of their words."""

    def __init__(
        self,
        paths: tuple[Path, Path],
        src: T,
        trg: T,
        priors: Priors | None = None,
        chunk_cells: int = CHUNK_CELLS,
        later_cells: int | None = None,
        iterations: int = ITERATIONS,
        processes: int = 1,
        longest: int = NO_LIMIT,
    ) -> None:
        """`later_cells` and `iterations` are of the chunks after the sample: their size (None: the sample's) and how
        long they are trained on. Pairs with more than `longest` tokens on a side get no links. The number of
        `processes` does not change a link.

        Raises UserError when the sides are of unequal length.
        """
        self.paths, self.src, self.trg, self.chunk_cells = paths, src, trg, chunk_cells
        self.later_cells, self.iterations, self.processes = later_cells or chunk_cells, iterations, processes
        self.longest = longest
        self.priors = priors or Priors.none()
        self.lines, trg_lines = count_lines(paths[0]), count_lines(paths[1])
        if self.lines != trg_lines:
            raise UserError(f"{paths[0]} has {self.lines} lines, but {paths[1]} has {trg_lines}")

    def chunks(self) -> Iterator[tuple[Bitext, Links]]:
        """Yield the corpus in order, with the symmetrised links."""
        progress = Progress("aligning", "pairs", self.lines)
        reader = BitextReader(read_parallel(*self.paths), self.chunk_cells, self.longest)
        src, trg = self.src.fresh(), self.trg.fresh()
        bitext = reader.read(src, trg)
        if bitext is not None and len(bitext) == self.lines:
            yield bitext, self._learn(bitext, src, trg)
            progress.add(len(bitext))
        elif bitext is not None:
            self._learn_from_sample(-(-self.lines // len(bitext)))
            for chunk in self._later_chunks(self._go_on(bitext, reader)):
                yield chunk
                progress.add(len(chunk[0]))
        progress.finish()

    def _go_on(self, first: Bitext, reader: BitextReader) -> Iterator[tuple[Bitext, int, int]]:
        """The corpus in later chunks, with the numbers of their words. What was read `first` is read again if its words
        have got other ids meanwhile."""
        if self.src.complete and self.trg.complete:
            chunks = first.split(self.later_cells)
            reader.most_cells = self.later_cells
        else:
            chunks = iter(())
            reader = BitextReader(read_parallel(*self.paths), self.later_cells, self.longest)
        for chunk in chunks:
            yield chunk, len(self.src), len(self.trg)
        while bitext := reader.read(src := self.src.fresh(), trg := self.trg.fresh()):
            yield bitext, len(src), len(trg)

    def _later_chunks(self, chunks: Iterator[tuple[Bitext, int, int]]) -> Iterator[tuple[Bitext, Links]]:
        """Chunks, aligned with what the sample taught."""
        if self.processes == 1:
            for bitext, src_types, trg_types in chunks:
                yield bitext, align_chunk(bitext, src_types, trg_types, self.priors, self.iterations)
            return
        with ProcessPoolExecutor(
            self.processes, get_context("spawn"), _set_priors, (self.priors, self.iterations)
        ) as executor:
            waiting: deque[tuple[Bitext, Future[Links]]] = deque()
            try:
                for bitext, src_types, trg_types in chunks:
                    waiting.append((bitext, executor.submit(_align_with_priors, bitext, src_types, trg_types)))
                    if len(waiting) > self.processes:
                        first, links = waiting.popleft()
                        yield first, links.result()
                for rest, links in waiting:
                    yield rest, links.result()
            except BrokenProcessPool as error:
                raise UserError(
                    "a process that was aligning has ended, most likely for want of memory: use smaller chunks"
                ) from error

    def _learn_from_sample(self, step: int) -> None:
        sample = itertools.islice(read_parallel(*self.paths), 0, None, step)
        src, trg = self.src.fresh(), self.trg.fresh()
        bitext = BitextReader(sample, self.chunk_cells, self.longest).read(src, trg)
        assert bitext is not None
        self._learn(bitext, src, trg)

    def _learn(self, bitext: Bitext, src: T, trg: T) -> Links:
        result = align(bitext, len(src), len(trg), self.priors, threads=self.processes)
        self.priors, self.src, self.trg = self.priors.plus(result.counts), src, trg
        return grow_diag_final_and(result.forward, result.backward, bitext.src_lengths, bitext.trg_lengths)


def align_chunk(bitext: Bitext, src_types: int, trg_types: int, priors: Priors, iterations: int) -> Links:
    """Train on a bitext after `priors`, and symmetrise its links."""
    result = align(bitext, src_types, trg_types, priors, iterations)
    return grow_diag_final_and(result.forward, result.backward, bitext.src_lengths, bitext.trg_lengths)


# What a process that aligns chunks was started with.
_known: tuple[Priors, int]


def _set_priors(priors: Priors, iterations: int) -> None:
    global _known
    _known = priors, iterations


def _align_with_priors(bitext: Bitext, src_types: int, trg_types: int) -> Links:
    return align_chunk(bitext, src_types, trg_types, *_known)
