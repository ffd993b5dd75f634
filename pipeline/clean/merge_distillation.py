"""Merge corpora translated by a teacher into one, shuffled. Of equal pairs (NFC, stripped) the first stays."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.clean.merge import (
    add_corpus_flags,
    add_size_flags,
    decide,
    finish,
    kept_rows,
    named_corpora,
    same_pair,
    survey,
)
from pipeline.clean.shuffle import shuffled
from pipeline.common.command import run_command
from pipeline.common.corpus import write_columns

EXAMPLE = """example:
  python -m pipeline.clean.merge_distillation --corpus parallel corpus.en.zst corpus.de.zst \\
    --corpus mono mono.en.zst mono.de.zst \\
    --output-src merged.en.zst --output-trg merged.de.zst --stats merged.stats.json
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_corpus_flags(parser, sides=2, held_out=False)
    add_size_flags(parser)
    parser.add_argument("--output-src", type=Path, required=True)
    parser.add_argument("--output-trg", type=Path, required=True)
    parser.add_argument("--stats", type=Path, required=True, help="JSON to write: counts by corpus")
    args = parser.parse_args(arguments)
    found = survey(named_corpora(args.corpus), (), key=same_pair)
    keep, stats = decide(found, args.max_sentences, args.seed)
    with write_columns(args.output_src, args.output_trg) as output:
        for pair in shuffled(kept_rows(found, keep), stats["lines"], 2, args.seed, args.output_src.parent):
            output.write(*pair)
    finish(stats, args.stats)


if __name__ == "__main__":
    run_command(main)
