"""Fetch a text file of an earlier run (alignment priors, a shortlist) and write it under the pipeline's name."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.common.command import run_command
from pipeline.continuation.mono import bring_text

EXAMPLE = """example:
  python -m pipeline.continuation.file --uri https://host/lex.s2t.pruned.zst --output lex.s2t.pruned.zst
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--uri", required=True, help="where the file is: plain, .gz or .zst")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args(arguments)
    bring_text(args.uri, None, args.output)


if __name__ == "__main__":
    run_command(main)
