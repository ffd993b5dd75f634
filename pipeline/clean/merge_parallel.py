"""Merge cleaned parallel corpora into one training corpus.

Pairs whose source or target stands in a held-out set on that side are dropped (compared in NFC, casefolded, with single
spaces), and how many is reported by set and by corpus: leaked test sentences make scores worthless. Of the pairs with
the same target (NFC, stripped) one stays: the one with the highest score when scores are given, else the first, so name
the better corpora first. The order of the corpora and of their lines is kept.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.clean.dedupe import same_line
from pipeline.clean.merge import (
    add_corpus_flags,
    add_size_flags,
    decide,
    finish,
    kept_rows,
    named_corpora,
    read_scores,
    survey,
)
from pipeline.common.command import run_command
from pipeline.common.corpus import write_columns

EXAMPLE = """example:
  python -m pipeline.clean.merge_parallel --corpus tatoeba tatoeba.en.zst tatoeba.de.zst \\
    --corpus docs docs.en.zst docs.de.zst --held-out newstest newstest.en.zst newstest.de.zst \\
    --output-src corpus.en.zst --output-trg corpus.de.zst --stats corpus.stats.json
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_corpus_flags(parser, sides=2)
    parser.add_argument(
        "--scores",
        nargs=2,
        metavar=("NAME", "FILE"),
        action="append",
        default=[],
        help="a score per line of a corpus, higher is better; for all corpora or for none",
    )
    add_size_flags(parser)
    parser.add_argument("--output-src", type=Path, required=True)
    parser.add_argument("--output-trg", type=Path, required=True)
    parser.add_argument("--stats", type=Path, required=True, help="JSON to write: counts by corpus and held-out set")
    args = parser.parse_args(arguments)
    corpora = named_corpora(args.corpus)
    found = survey(corpora, named_corpora(args.held_out), key=lambda pair: same_line(pair[1]))
    scores = read_scores(found, [(name, Path(path)) for name, path in args.scores])
    keep, stats = decide(found, args.max_sentences, args.seed, scores=scores)
    with write_columns(args.output_src, args.output_trg) as output:
        for pair in kept_rows(found, keep):
            output.write(*pair)
    finish(stats, args.stats)


if __name__ == "__main__":
    run_command(main)
