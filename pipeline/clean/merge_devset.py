"""Merge development sets into one, without what stands in the test sets.

Pairs whose source or target stands in a held-out set on that side are dropped (compared in NFC, casefolded, with single
spaces), and of equal pairs (NFC, stripped) the first stays. The order of the sets and of their lines is kept.
"""

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
from pipeline.common.command import run_command
from pipeline.common.corpus import write_columns

EXAMPLE = """example:
  python -m pipeline.clean.merge_devset --corpus flores dev.en.zst dev.de.zst --held-out test test.en.zst test.de.zst \\
    --output-src devset.en.zst --output-trg devset.de.zst --stats devset.stats.json
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_corpus_flags(parser, sides=2)
    add_size_flags(parser)
    parser.add_argument("--output-src", type=Path, required=True)
    parser.add_argument("--output-trg", type=Path, required=True)
    parser.add_argument("--stats", type=Path, required=True, help="JSON to write: counts by corpus and held-out set")
    args = parser.parse_args(arguments)
    found = survey(named_corpora(args.corpus), named_corpora(args.held_out), key=same_pair)
    keep, stats = decide(found, args.max_sentences, args.seed)
    with write_columns(args.output_src, args.output_trg) as output:
        for pair in kept_rows(found, keep):
            output.write(*pair)
    finish(stats, args.stats)


if __name__ == "__main__":
    run_command(main)
