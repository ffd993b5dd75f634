"""What the merging steps share: their flags, the two passes over the corpora, the statistics.

The first pass reads every corpus once and notes, per line, a digest and whether the line may stay. Between the passes
it is decided in flat arrays which lines are kept; the second pass writes them. No text is held in memory.
"""

import argparse
import logging
import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.clean.dedupe import Digests, Mask, first_occurrences, same_line, sample
from pipeline.clean.held_out import HeldOut
from pipeline.common.corpus import read_columns
from pipeline.common.errors import UserError
from pipeline.common.files import read_lines, write_json
from pipeline.common.progress import Progress

PROGRESS_STEP = 1000

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Corpus:
    """A named corpus of one file per side."""

    name: str
    paths: tuple[Path, ...]

    def rows(self) -> Iterator[tuple[str, ...]]:
        yield from read_columns(*self.paths)


@dataclass
class Survey:
    """What the first pass found: per line of all corpora in order, its digest and whether it is a candidate."""

    corpora: list[Corpus]
    digests: Digests = field(default_factory=Digests)
    candidates: bytearray = field(default_factory=bytearray)
    read: list[int] = field(default_factory=list)
    held_out: dict[str, int] = field(default_factory=dict)

    def candidate_mask(self) -> Mask:
        return np.frombuffer(self.candidates, dtype=np.bool_)

    def counts(self, mask: Mask) -> list[int]:
        """Number of true lines of each corpus. mask bool [lines]"""
        ends = np.cumsum(self.read)
        return [
            int(np.count_nonzero(mask[end - size : end])) for size, end in zip(self.read, ends.tolist(), strict=True)
        ]


def survey(corpora: list[Corpus], held_out: Sequence[Corpus], key: Callable[[tuple[str, ...]], str]) -> Survey:
    """The first pass: digests of `key(row)`, and which rows stand in no held-out set on any side.

    Raises UserError when the sides of a corpus differ in length.
    """
    found = Survey(corpora, held_out={corpus.name: 0 for corpus in held_out})
    sides = [
        HeldOut([(corpus.name, corpus.paths[side]) for corpus in held_out]) for side in range(len(corpora[0].paths))
    ]
    progress = Progress("finding duplicates", "lines")
    for corpus in corpora:
        start = len(found.digests)
        for row in corpus.rows():
            found.digests.add(key(row))
            hits: set[str] = set()
            if held_out:
                hits = {name for side, text in zip(sides, row, strict=True) for name in side.find(text)}
                for name in hits:
                    found.held_out[name] += 1
            found.candidates.append(not hits)
            if len(found.candidates) % PROGRESS_STEP == 0:
                progress.add(PROGRESS_STEP)
        found.read.append(len(found.digests) - start)
    progress.finish()
    return found


def decide(
    found: Survey,
    max_sentences: int | None,
    seed: int,
    excluded: Mask | None = None,
    scores: NDArray[np.float32] | None = None,
) -> tuple[Mask, dict[str, Any]]:
    """Which lines stay (bool [lines]), and the statistics.

    `excluded` are lines that stand in the parallel corpus, bool [lines]; `scores` choose among duplicates, float32
    [lines]. The digests are gone afterwards. Raises UserError when no line stays.
    """
    candidates = found.candidate_mask()
    columns = {
        "read": found.read,
        "held-out": [read - left for read, left in _pairs(found.read, found.counts(candidates))],
    }
    if excluded is not None:
        excluded = excluded & candidates
        columns["in-parallel"] = found.counts(excluded)
        candidates = candidates & ~excluded
    unique = first_occurrences(found.digests.array(), candidates, scores)
    found.digests = Digests()  # its memory is needed no longer
    columns["duplicate"] = [left - one for left, one in _pairs(found.counts(candidates), found.counts(unique))]
    keep = sample(unique, max_sentences, seed)
    columns["kept"] = found.counts(keep)
    columns["not-sampled"] = [one - kept for one, kept in _pairs(found.counts(unique), columns["kept"])]
    stats = {
        "corpora": {
            corpus.name: {column: counts[index] for column, counts in columns.items()}
            for index, corpus in enumerate(found.corpora)
        },
        "held-out": found.held_out,
        "lines": sum(columns["kept"]),
    }
    _refuse_nothing(stats)
    return keep, stats


def kept_rows(found: Survey, keep: Mask) -> Iterator[tuple[str, ...]]:
    """The second pass: the rows that stay, in the order of the corpora. keep bool [lines]"""
    progress = Progress("writing the merged corpus", "lines", total=int(np.count_nonzero(keep)))
    start = 0
    for corpus, size in zip(found.corpora, found.read, strict=True):
        for number, row in enumerate(compress(corpus.rows(), keep[start : start + size].tobytes()), 1):
            if number % PROGRESS_STEP == 0:
                progress.add(PROGRESS_STEP)
            yield row
        start += size
    progress.finish()


def read_scores(found: Survey, files: Sequence[tuple[str, Path]]) -> NDArray[np.float32] | None:
    """The scores of all lines, float32 [lines], from one file of numbers per corpus; None when there are no files.

    Raises UserError when a corpus has no scores, too few or too many, or when a score is not a number.
    """
    if not files:
        return None
    paths = dict(files)
    names = [corpus.name for corpus in found.corpora]
    if len(paths) != len(files) or set(paths) != set(names):
        raise UserError(f"scores are needed once for each of the corpora {', '.join(names)} or for none of them")
    scores = array("f")
    for name, size in zip(names, found.read, strict=True):
        start = len(scores)
        for number, line in enumerate(read_lines(paths[name]), 1):
            try:
                score = float(line)
            except ValueError:
                score = math.nan
            if math.isnan(score):
                raise UserError(f"{paths[name]}, line {number}: {line[:40]!r} is not a score") from None
            scores.append(score)
        if len(scores) - start != size:
            raise UserError(f"{paths[name]} has {len(scores) - start} scores for the {size} lines of corpus {name}")
    return np.frombuffer(scores, dtype=np.float32)


def finish(stats: dict[str, Any], path: Path) -> None:
    """Write the statistics and say what was kept."""
    write_json(path, stats)
    for name, counts in stats["corpora"].items():
        logger.info(f"{name}: " + ", ".join(f"{key} {count:,}" for key, count in counts.items()))
    for name, count in stats["held-out"].items():
        if count:
            logger.info(f"{count:,} lines stood in the held-out set {name} and were left out")


def add_corpus_flags(parser: argparse.ArgumentParser, sides: int, held_out: bool = True) -> None:
    """`--corpus NAME FILE…` and `--held-out NAME FILE…`, with so many files, one per side."""
    files = ("SRC", "TRG") if sides == 2 else ("FILE",)
    parser.add_argument(
        "--corpus",
        nargs=1 + sides,
        metavar=("NAME", *files),
        action="append",
        required=True,
        help="a corpus to merge, repeatable; of duplicates the first stays",
    )
    if held_out:
        parser.add_argument(
            "--held-out",
            nargs=1 + sides,
            metavar=("NAME", *files),
            action="append",
            default=[],
            help="a development or test set whose sentences must not be in the result, repeatable",
        )


def add_size_flags(parser: argparse.ArgumentParser) -> None:
    """`--max-sentences` and `--seed`."""
    parser.add_argument("--max-sentences", type=_size, help="keep a uniform random sample of so many lines")
    parser.add_argument("--seed", type=int, default=1, help="of all random choices (default: 1)")


def same_pair(pair: tuple[str, ...]) -> str:
    """What two pairs have in common when one is the duplicate of the other."""
    return "\n".join(map(same_line, pair))


def _pairs(left: list[int], right: list[int]) -> Iterator[tuple[int, int]]:
    return zip(left, right, strict=True)


def _size(text: str) -> int:
    """Type of a flag that takes a number of lines."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of lines above 0")
    return number


def named_corpora(values: Sequence[Sequence[str]]) -> list[Corpus]:
    """The corpora of a repeated flag. Raises UserError when a name is given twice, as statistics are by name."""
    corpora = [Corpus(name, tuple(map(Path, paths))) for name, *paths in values]
    names = [corpus.name for corpus in corpora]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"the name {name!r} is given to more than one corpus: names must be distinct")
    return corpora


def _refuse_nothing(stats: dict[str, Any]) -> None:
    if stats["lines"]:
        return
    causes = {"duplicates": "duplicate", "in held-out sets": "held-out", "in the parallel corpus": "in-parallel"}
    counts = {cause: sum(corpus.get(key, 0) for corpus in stats["corpora"].values()) for cause, key in causes.items()}
    read = sum(corpus["read"] for corpus in stats["corpora"].values())
    shown = ", ".join(f"{count:,} {cause}" for cause, count in counts.items() if count)
    raise UserError(
        f"merging {', '.join(stats['corpora'])} left no lines: {read:,} were read{f', {shown}' if shown else ''}; "
        "give corpora that hold other sentences"
    )
