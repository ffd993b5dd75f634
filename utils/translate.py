"""Translate lines of text with an exported model.

MODEL is an export folder (of a run's `export` task), an export for the browser, a CTranslate2 folder with its
SentencePiece vocabularies, or a folder with model.npz and its vocabularies. The best engine that it has a model for is
used: CTranslate2, else torch, else the browser's own engine (in Node); for --html it is always the browser's. Which
one it is is said once, on standard error.

Lines come from files or standard input; one line of output for each line of input.
"""

import argparse
import io
import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from pipeline.common.errors import UserError
from pipeline.common.files import read_lines
from pipeline.model.hardware import cpu_threads
from utils.common import command_parser, run_command
from utils.translation_engines import ENGINES, Settings, choose_engine, load_engine

EXAMPLES = """examples:
  echo "Save the file?" | limbeck translate runs/task/…/export
  limbeck translate export/ news.en --beam-size 4 > news.de
  echo "Save the <b>file</b>?" | limbeck translate export/browser --html
"""
BLOCK = 512  # lines that are read before they are translated


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and translate."""
    parser = command_parser("translate", __doc__, EXAMPLES)
    parser.add_argument("model", type=Path, help="a folder with a model")
    parser.add_argument("files", nargs="*", help="text files, plain, gz or zst (default: standard input)")
    parser.add_argument("--engine", choices=ENGINES, help="the engine to use (default: the best that MODEL has)")
    parser.add_argument("--beam-size", type=int, default=1)
    parser.add_argument("--float32", action="store_true", help="use the float32 model of an export, not the 8-bit one")
    parser.add_argument(
        "--html", action="store_true", help="lines are HTML: tags stay around what they were around (browser)"
    )
    parser.add_argument(
        "--shortlist",
        action="store_true",
        help="choose among the likely words of each line, which is faster (CTranslate2; the browser's engine always "
        "does where its export has a shortlist)",
    )
    parser.add_argument(
        "--threads", type=int, default=cpu_threads(), help="default: all processors; the browser's engine has one"
    )
    options = parser.parse_intermixed_args(arguments)
    return run_command(lambda: _translate(options))


def _translate(options: argparse.Namespace) -> int:
    for name in ("beam_size", "threads"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, found {getattr(options, name)}")
    # A person who types wants each answer at once.
    typed = sys.stdin.isatty() and not options.files
    settings = Settings(
        options.beam_size, options.threads, options.float32, options.html, options.shortlist, at_once=typed
    )
    name, folder = choose_engine(options.model, options.engine, settings)
    with closing(load_engine(name, folder, settings)) as engine:
        print(f"engine: {engine.description}", file=sys.stderr)
        lines = _lines(options.files)
        while block := list(itertools.islice(lines, 1 if typed else BLOCK)):
            for text in engine.translate(block):
                print(text, flush=typed)
    return 0


def _lines(files: Sequence[str]) -> Iterator[str]:
    if files:
        return itertools.chain.from_iterable(map(read_lines, files))
    return _standard_input()


def _standard_input() -> Iterator[str]:
    """Lines as files have them: a lone carriage return ends none."""
    text = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", newline="\n")
    try:
        for line in text:
            yield line.rstrip("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise UserError(f"standard input is not UTF-8 text: {error.reason}") from error


if __name__ == "__main__":
    sys.exit(main())
