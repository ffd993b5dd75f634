"""Drop the worst-scored share of a corpus; the rest keeps its order.

Exactly floor(fraction x pairs) go. Scores that are no finite numbers are the worst; among equal scores the earlier
pairs go first.
"""

import argparse
import logging
import math
from array import array
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.common.command import run_command
from pipeline.common.corpus import read_columns, write_columns
from pipeline.common.errors import UserError
from pipeline.common.files import read_lines, write_json
from pipeline.common.progress import Progress

logger = logging.getLogger(__name__)

EXAMPLE = """example:
  python -m pipeline.score.filter --corpus-src all.en.zst --corpus-trg all.de.zst --scores scores.zst \\
    --remove-fraction 0.05 --output-src corpus.en.zst --output-trg corpus.de.zst --stats filter.stats.json
"""

Array = np.ndarray[Any, Any]


def fraction_argument(text: str) -> Fraction:
    """Type of --remove-fraction: exact, so that 0.29 of 100 pairs are 29 and not 28."""
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 0 and below 1")
    return value


def read_scores(path: Path) -> Array:
    """Scores of a file, float32, -inf for what is no finite number. Raises UserError on a line that is no number."""
    values = array("f")
    for number, line in enumerate(read_lines(path), start=1):
        try:
            values.append(float(line))
        except (ValueError, OverflowError) as error:
            raise UserError(f"{path}:{number}: {line[:40]!r} is not a number") from error
    scores = np.frombuffer(values, dtype=np.float32) if values else np.zeros(0, dtype=np.float32)
    return np.where(np.isfinite(scores), scores, np.float32(-np.inf))


def worst(scores: Array, count: int) -> Array:
    """Mask of the `count` lowest scores, bool [scores]; among equal ones the first."""
    mask = np.zeros(len(scores), dtype=bool)
    if count:
        threshold = np.partition(scores, count - 1)[count - 1]
        mask = scores < threshold
        equal = np.flatnonzero(scores == threshold)
        mask[equal[: count - int(mask.sum())]] = True
    return mask


def filter_corpus(
    corpus: tuple[Path, Path], scores_path: Path, fraction: Fraction, outputs: tuple[Path, Path], stats_path: Path
) -> None:
    """Write the corpus without its worst share. Raises UserError when corpus and scores differ in length."""
    scores = read_scores(scores_path)
    removed = worst(scores, math.floor(fraction * len(scores)))
    progress = Progress("filtering", "pairs", len(scores))
    with write_columns(*outputs) as output:
        for number, (src, trg, _) in enumerate(read_columns(*corpus, scores_path)):
            if not removed[number]:
                output.write(src, trg)
            progress.add()
        kept = output.lines
    progress.finish()
    finite = scores[np.isfinite(scores)]
    write_json(
        stats_path,
        {
            "read": len(scores),
            "kept": kept,
            "removed": {"backward-score": int(removed.sum())},
            "mean-score": round(float(finite.mean(dtype=np.float64)), 6) if len(finite) else None,
            "lowest-score-kept": _lowest(scores[~removed]),
        },
    )
    logger.info(f"dropped the worst {int(removed.sum()):,} of {len(scores):,} pairs")


def _lowest(kept: Array) -> float | None:
    finite = kept[np.isfinite(kept)]
    return round(float(finite.min()), 6) if len(finite) else None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus-src", type=Path, required=True, help="source side: plain, .gz or .zst")
    parser.add_argument("--corpus-trg", type=Path, required=True, help="target side, line by line with the source")
    parser.add_argument("--scores", type=Path, required=True, help="one score per pair; higher is better")
    parser.add_argument("--remove-fraction", type=fraction_argument, required=True, help="share to drop, such as 0.05")
    parser.add_argument("--output-src", type=Path, required=True)
    parser.add_argument("--output-trg", type=Path, required=True)
    parser.add_argument("--stats", type=Path, required=True, help="JSON to write: pairs read, kept and removed")
    args = parser.parse_args(arguments)
    filter_corpus(
        (args.corpus_src, args.corpus_trg),
        args.scores,
        args.remove_fraction,
        (args.output_src, args.output_trg),
        args.stats,
    )


if __name__ == "__main__":
    run_command(main)
