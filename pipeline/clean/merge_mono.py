"""Merge cleaned monolingual corpora into one, shuffled.

Of equal lines (NFC, stripped) the first stays; lines that stand in the parallel corpus' same side, or in a held-out set
(compared in NFC, casefolded, with single spaces), are dropped.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.clean.dedupe import Digests, Mask, members, same_line
from pipeline.clean.merge import (
    Survey,
    add_corpus_flags,
    add_size_flags,
    decide,
    finish,
    kept_rows,
    named_corpora,
    survey,
)
from pipeline.clean.shuffle import shuffled
from pipeline.common.command import run_command
from pipeline.common.files import read_lines, write_lines

EXAMPLE = """example:
  python -m pipeline.clean.merge_mono --lang de --corpus news news.de.zst --corpus web web.de.zst \\
    --parallel corpus.de.zst --max-sentences 1000000 --output mono.de.zst --stats mono.stats.json
"""


def in_file(found: Survey, path: Path) -> Mask:
    """Which lines of the surveyed corpora stand in a file, at 8 bytes a line of it. Returns bool [lines]"""
    lines = Digests()
    for line in read_lines(path):
        lines.add(same_line(line))
    digests = lines.array()
    digests.sort()
    return members(found.digests.array(), digests)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lang", required=True, help="language of the corpora, for the statistics")
    add_corpus_flags(parser, sides=1)
    parser.add_argument("--parallel", type=Path, help="the parallel corpus' side in this language, to leave out")
    add_size_flags(parser)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--stats", type=Path, required=True, help="JSON to write: counts by corpus and held-out set")
    args = parser.parse_args(arguments)
    found = survey(named_corpora(args.corpus), named_corpora(args.held_out), key=lambda row: same_line(row[0]))
    excluded = in_file(found, args.parallel) if args.parallel else None
    keep, stats = decide(found, args.max_sentences, args.seed, excluded=excluded)
    with write_lines(args.output) as output:
        for (line,) in shuffled(kept_rows(found, keep), stats["lines"], 1, args.seed, args.output.parent):
            output.write(line)
    finish({"lang": args.lang, **stats}, args.stats)


if __name__ == "__main__":
    run_command(main)
