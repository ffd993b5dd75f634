"""Of each sentence's hypotheses, keep the one nearest to its reference.

Nearest by sentence chrF; among equals the one that the model ranked better.
"""

import argparse
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from pipeline.common.command import run_command
from pipeline.common.errors import UserError
from pipeline.common.files import count_lines, read_lines, write_lines
from pipeline.common.progress import Progress
from pipeline.translate.chrf import sentence_chrf
from pipeline.translate.nbest import read_nbest

EXAMPLE = """example:
  python -m pipeline.translate.extract_best --nbest file.1.nbest.zst --references file.1.ref.zst --output file.1.out.zst
"""

BLOCK = 64  # sentences; the arrays of so many stay in a processor's caches


def extract_best(nbest: Path, references: Path, output_path: Path) -> None:
    """Write one hypothesis per reference. Raises UserError when the lists and the references differ in number."""
    progress = Progress("choosing hypotheses", "sentences", count_lines(references))
    lists, lines = read_nbest(nbest), read_lines(references)
    with write_lines(output_path) as output:
        while block := list(islice(lines, BLOCK)):
            hypotheses = list(islice(lists, len(block)))
            if len(hypotheses) < len(block):
                raise UserError(
                    f"{nbest} has hypotheses of {output.lines + len(hypotheses)} sentences only, but "
                    f"{references} has more lines"
                )
            for row, best in zip(hypotheses, sentence_chrf(block, hypotheses).argmax(axis=1), strict=True):
                output.write(row[best])
            progress.add(len(block))
        if next(lists, None) is not None:
            raise UserError(f"{nbest} has hypotheses of more sentences than the {output.lines} of {references}")
    progress.finish()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nbest", type=Path, required=True, help="hypotheses, as translate --nbest writes them")
    parser.add_argument("--references", type=Path, required=True, help="one reference per sentence")
    parser.add_argument("--output", type=Path, required=True, help="the hypotheses chosen, one per sentence")
    args = parser.parse_args(arguments)
    extract_best(args.nbest, args.references, args.output)


if __name__ == "__main__":
    run_command(main)
