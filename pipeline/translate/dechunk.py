"""Join translated chunks, in the order given, and check that they are as long as the text they translate.

With --output-like the text itself is written beside the translations, so that both sides of the new corpus come from
one step.
"""

import argparse
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.common.command import run_command
from pipeline.common.corpus import write_columns
from pipeline.common.errors import UserError
from pipeline.common.files import read_lines
from pipeline.common.progress import Progress

logger = logging.getLogger(__name__)

EXAMPLE = """example:
  python -m pipeline.translate.dechunk --chunk file.1.out.zst file.2.out.zst --like corpus.en.zst --output corpus.de.zst
"""


def dechunk(chunks: Sequence[Path], like: Path, output: Path, output_like: Path | None = None) -> None:
    """Join chunks. Raises UserError when they have more or fewer lines than `like`."""

    def joined() -> Iterator[str]:
        for path in chunks:
            yield from read_lines(path)

    lines, progress = joined(), Progress("joining chunks", "lines")
    outputs = [output, *([output_like] if output_like else [])]
    with write_columns(*outputs) as corpus:
        for text in read_lines(like):
            translation = next(lines, None)
            if translation is None:
                raise UserError(f"the chunks have only {corpus.lines} lines, but {like} goes on: a chunk is not whole")
            corpus.write(*(translation, text)[: len(outputs)])
            progress.add()
        if next(lines, None) is not None:
            raise UserError(f"the chunks have more lines than the {corpus.lines} of {like}: a chunk is given twice")
    progress.finish()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--chunk", type=Path, nargs="+", action="extend", required=True, help="translated chunks, in their order"
    )
    parser.add_argument("--like", type=Path, required=True, help="the text that was cut into the chunks")
    parser.add_argument("--output", type=Path, required=True, help="the chunks, joined")
    parser.add_argument("--output-like", type=Path, help="a copy of the text that was cut, written with the output")
    args = parser.parse_args(arguments)
    dechunk(args.chunk, args.like, args.output, args.output_like)


if __name__ == "__main__":
    run_command(main)
