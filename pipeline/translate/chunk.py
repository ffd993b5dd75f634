"""Cut a text, and its references beside it, into chunks of consecutive lines.

Writes file.1.zst … file.N.zst, with references also file.1.ref.zst …. Each chunk has ceil(lines / N) lines; the last
ones may have fewer, or none.
"""

import argparse
import logging
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from pipeline.common.command import run_command
from pipeline.common.corpus import read_columns, write_columns
from pipeline.common.errors import UserError
from pipeline.common.files import count_lines

logger = logging.getLogger(__name__)

EXAMPLE = """example:
  python -m pipeline.translate.chunk --input corpus.en.zst --references corpus.de.zst --chunks 20 --output-dir chunks
"""


def chunk(inputs: Sequence[Path], chunks: int, output_dir: Path) -> None:
    """Cut a text, or a text and its references, into `chunks` files each. Raises UserError on unequal lengths."""
    if chunks < 1:
        raise UserError(f"--chunks is {chunks}: it must be at least 1")
    lines = count_lines(inputs[0])
    size = -(-lines // chunks)
    for path in inputs[1:]:
        if (others := count_lines(path)) != lines:
            raise UserError(f"{path} has {others} lines, but {inputs[0]} has {lines}: they must be of equal length")
    rows = read_columns(*inputs)
    suffixes = (".zst", ".ref.zst")[: len(inputs)]
    for number in range(1, chunks + 1):
        with write_columns(*(output_dir / f"file.{number}{suffix}" for suffix in suffixes)) as output:
            for row in islice(rows, size):
                output.write(*row)
    logger.info(f"{lines:,} lines in {chunks} chunks of {size:,}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", type=Path, required=True, help="text to cut: plain, .gz or .zst")
    parser.add_argument("--references", type=Path, help="its references, line by line")
    parser.add_argument("--chunks", type=int, required=True, help="number of chunks")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder for the chunks")
    args = parser.parse_args(arguments)
    chunk([args.input, *([args.references] if args.references else [])], args.chunks, args.output_dir)


if __name__ == "__main__":
    run_command(main)
