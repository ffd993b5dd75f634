"""Make the lexical shortlist of a student: which target pieces each source piece is likely to need.

Both sides of the corpus are cut into the pieces of the student's vocabularies and aligned. Each line of the output is
`target source probability`: a target piece, a source piece, and the share of the source piece's links that lead there
(its uses without a link count as one to nothing). Kept are each source piece's best targets and, of the rest, those
among the first entries of the target vocabulary. Lines are sorted by source piece (in vocabulary order), falling
probability and target piece.
"""

import argparse
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import sentencepiece

from pipeline.align.bitext import Bitext, Ints
from pipeline.align.corpus import CorpusAligner
from pipeline.align.priors import Doubles
from pipeline.align.symmetrize import Links
from pipeline.common.command import run_command
from pipeline.common.errors import UserError
from pipeline.common.files import write_lines
from pipeline.model.hardware import cpu_threads

logger = logging.getLogger(__name__)

CHUNK_CELLS = 45_000_000  # of the sample: with 60 million 0.003 more of a test set is covered, and it takes 4 s longer
# Counting links is less delicate than aligning: of what comes after the sample, small chunks are trained on once.
LATER_SHARE = 5
LATER_ITERATIONS = 1
# Pairs longer than this are few (1 in 100) and have a third of all combinations of a source and a target piece.
LONGEST = 80
MOST_UNKNOWN = 0.5  # share of unknown pieces; even a script that a vocabulary barely knows stays below
MOST_PROCESSES = 4  # together with this one in less than 2 GB

EXAMPLE = """example:
  python -m pipeline.align.shortlist --corpus-src corpus.en.zst --corpus-trg corpus.de.zst \\
    --src-vocab vocab.en.spm --trg-vocab vocab.de.spm --output lex.s2t.pruned.zst
"""


class Pieces:
    """The pieces of a SentencePiece vocabulary as tokens to align."""

    complete = True

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Raises UserError when the file is absent or no SentencePiece model."""
        self.path, self.threads = path, threads
        if not path.is_file():
            raise UserError(f"{path} does not exist")
        try:
            self.vocab = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (RuntimeError, OSError) as error:
            raise UserError(f"{path} is not a SentencePiece model") from error

    def __len__(self) -> int:
        return int(self.vocab.get_piece_size())

    def encode(self, lines: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self.vocab.encode(lines, num_threads=self.threads)
        return ids

    def fresh(self) -> Self:
        return self  # its numbering is complete

    def piece(self, number: int) -> str:
        return str(self.vocab.id_to_piece(number))

    def check_known(self, uses: Ints) -> None:
        """Raise UserError when most of the pieces (their numbers of uses, by id) are the unknown one."""
        share = uses[self.vocab.unk_id()] / uses.sum()
        if share > MOST_UNKNOWN:
            raise UserError(
                f"{share:.0%} of the corpus's pieces are unknown to {self.path}: a shortlist needs the student's own "
                "vocabularies, source and target each to its side"
            )


class LinkCounts:
    """How often each source piece is linked to each target piece, and to none."""

    def __init__(self, src_types: int, trg_types: int) -> None:
        self.trg_types = trg_types
        self.keys: Ints = np.zeros(0, np.int64)  # source * trg_types + target, sorted
        self.counts: Ints = np.zeros(0, np.int64)
        self.totals: Ints = np.zeros(src_types, np.int64)  # by source piece: its links, and its uses without one

    def add(self, bitext: Bitext, links: Links) -> None:
        src_starts = np.cumsum(bitext.src_lengths) - bitext.src_lengths
        trg_starts = np.cumsum(bitext.trg_lengths) - bitext.trg_lengths
        tokens = src_starts[links.pair] + links.src
        sources, targets = bitext.src[tokens], bitext.trg[trg_starts[links.pair] + links.trg]
        linked = np.zeros(len(bitext.src), bool)
        linked[tokens] = True
        self.totals += np.bincount(np.concatenate([sources, bitext.src[~linked]]), minlength=len(self.totals))
        found, counts = np.unique(sources * self.trg_types + targets, return_counts=True)
        keys, place = np.unique(np.concatenate([self.keys, found]), return_inverse=True)
        merged = np.zeros(len(keys), np.int64)
        merged[place[: len(self.keys)]] += self.counts
        merged[place[len(self.keys) :]] += counts
        self.keys, self.counts = keys, merged

    def of_targets(self) -> Ints:
        """How often each target piece is linked."""
        return np.bincount(self.keys % self.trg_types, self.counts, self.trg_types).astype(np.int64)

    def probabilities(self) -> tuple[Ints, Ints, Doubles]:
        """Source pieces, target pieces and p(target | source) of all linked pairs, sorted as the shortlist is."""
        sources, targets = np.divmod(self.keys, self.trg_types)
        probability = self.counts / self.totals[sources]
        order = np.lexsort((targets, -probability, sources))
        return sources[order], targets[order], probability[order]


def prune(sources: Ints, targets: Ints, best: int, first: int) -> Ints:
    """Places of the entries to keep, of entries sorted by source and falling probability: the `best` of each source,
    and those whose target is among the `first` of its vocabulary."""
    starts = np.flatnonzero(np.append(True, sources[1:] != sources[:-1])) if len(sources) else np.zeros(0, np.int64)
    rank = np.arange(len(sources)) - np.repeat(starts, np.diff(np.append(starts, len(sources))))
    return np.flatnonzero((rank < best) | (targets < first))


def shortlist(
    paths: tuple[Path, Path],
    src: Pieces,
    trg: Pieces,
    best: int,
    first: int,
    longest: int = LONGEST,
    chunk_cells: int = CHUNK_CELLS,
    processes: int = 1,
) -> Iterator[str]:
    """Yield the lines of a corpus's shortlist. Raises UserError on sides of unequal length, or when nothing aligns."""
    counts = LinkCounts(len(src), len(trg))
    aligner = CorpusAligner(
        paths,
        src,
        trg,
        chunk_cells=chunk_cells,
        later_cells=max(1, chunk_cells // LATER_SHARE),
        iterations=LATER_ITERATIONS,
        processes=processes,
        longest=longest,
    )
    too_long = 0
    for bitext, links in aligner.chunks():
        counts.add(bitext, links)
        too_long += bitext.too_long
    if too_long:
        logger.info(f"{too_long:,} of {aligner.lines:,} pairs are left out: too long (--longest {longest})")
    if not len(counts.keys):
        raise UserError(f"{paths[0]} and {paths[1]} hold no text to learn a shortlist from")
    src.check_known(counts.totals)
    trg.check_known(counts.of_targets())
    sources, targets, probabilities = counts.probabilities()
    for entry in prune(sources, targets, best, first).tolist():
        yield f"{trg.piece(int(targets[entry]))} {src.piece(int(sources[entry]))} {probabilities[entry]:.8f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus-src", type=Path, required=True, help="source side: plain, .gz or .zst")
    parser.add_argument("--corpus-trg", type=Path, required=True, help="target side, line by line with the source")
    parser.add_argument("--src-vocab", type=Path, required=True, help="SentencePiece model of the source side")
    parser.add_argument("--trg-vocab", type=Path, required=True, help="SentencePiece model of the target side")
    parser.add_argument("--output", type=Path, required=True, help="shortlist to write (.zst)")
    parser.add_argument("--best", type=int, default=100, help="targets kept for each source piece (default: 100)")
    parser.add_argument(
        "--first",
        type=int,
        default=102,
        help="so many first entries of the target vocabulary are kept wherever they are linked (default: 102)",
    )
    parser.add_argument(
        "--longest",
        type=int,
        default=LONGEST,
        help="pairs with more pieces than this on a side are left out: they take long (default: %(default)s)",
    )
    parser.add_argument(
        "--chunk-cells",
        type=int,
        default=CHUNK_CELLS,
        help="how many combinations of source and target pieces are held in memory at a time, at about 30 bytes each; "
        "pairs that have more by themselves are left out (default: %(default)s)",
    )
    args = parser.parse_args(arguments)
    if min(args.best, args.longest, args.chunk_cells) < 1 or args.first < 0:
        raise UserError("--best, --longest and --chunk-cells must be 1 or more, and --first 0 or more")
    processes = min(cpu_threads(), MOST_PROCESSES)
    lines = shortlist(
        (args.corpus_src, args.corpus_trg),
        Pieces(args.src_vocab, processes),
        Pieces(args.trg_vocab, processes),
        args.best,
        args.first,
        args.longest,
        args.chunk_cells,
        processes,
    )
    with write_lines(args.output) as file:
        for line in lines:
            file.write(line)
        logger.info(f"{args.output.name}: {file.lines:,} entries")


if __name__ == "__main__":
    run_command(main)
