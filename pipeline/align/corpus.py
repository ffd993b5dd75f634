"""Aligning corpora of any size: chunk by chunk, with what a sample of the whole corpus taught.

A corpus that fits into one chunk is trained on as a whole. From a larger one an evenly spread sample of one chunk's
size is trained on first. Its expected counts are prior knowledge for each chunk, which is then trained and aligned by
itself. So memory does not grow with the corpus, and no chunk depends on another.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

from pipeline.align.bitext import Bitext, BitextReader, Tokens
from pipeline.align.em import align
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
        self, paths: tuple[Path, Path], src: T, trg: T, priors: Priors | None = None, chunk_cells: int = CHUNK_CELLS
    ) -> None:
        """Raises UserError when the sides are of unequal length."""
        self.paths, self.src, self.trg, self.chunk_cells = paths, src, trg, chunk_cells
        self.priors = priors or Priors.none()
        self.lines, trg_lines = count_lines(paths[0]), count_lines(paths[1])
        if self.lines != trg_lines:
            raise UserError(f"{paths[0]} has {self.lines} lines, but {paths[1]} has {trg_lines}")

    def chunks(self) -> Iterator[tuple[Bitext, Links]]:
        """Yield the corpus in order, with the symmetrised links."""
        progress = Progress("aligning", "pairs", self.lines)
        reader = BitextReader(read_parallel(*self.paths), self.chunk_cells)
        src, trg = self.src.fresh(), self.trg.fresh()
        bitext = reader.read(src, trg)
        if bitext is not None and len(bitext) == self.lines:
            yield bitext, self._learn(bitext, src, trg)
            progress.add(len(bitext))
        elif bitext is not None:
            self._learn_from_sample(-(-self.lines // len(bitext)))
            reader = BitextReader(read_parallel(*self.paths), self.chunk_cells)
            while bitext := reader.read(src := self.src.fresh(), trg := self.trg.fresh()):
                result = align(bitext, len(src), len(trg), self.priors)
                yield (
                    bitext,
                    grow_diag_final_and(result.forward, result.backward, bitext.src_lengths, bitext.trg_lengths),
                )
                progress.add(len(bitext))
        progress.finish()

    def _learn_from_sample(self, step: int) -> None:
        sample = itertools.islice(read_parallel(*self.paths), 0, None, step)
        src, trg = self.src.fresh(), self.trg.fresh()
        bitext = BitextReader(sample, self.chunk_cells).read(src, trg)
        assert bitext is not None
        self._learn(bitext, src, trg)

    def _learn(self, bitext: Bitext, src: T, trg: T) -> Links:
        result = align(bitext, len(src), len(trg), self.priors)
        self.priors, self.src, self.trg = self.priors.plus(result.counts), src, trg
        return grow_diag_final_and(result.forward, result.backward, bitext.src_lengths, bitext.trg_lengths)
