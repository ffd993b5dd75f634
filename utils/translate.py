"""Translate lines of text with an exported model.

MODEL is an export folder (of a run's `export` task), or a CTranslate2 folder with its SentencePiece vocabularies.
Lines come from files or standard input; one line of output for each line of input.
"""

import argparse
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.common.errors import UserError
from pipeline.common.files import read_lines
from utils.common import command_parser, run_command

if TYPE_CHECKING:
    import ctranslate2
    import sentencepiece

EXAMPLES = """examples:
  echo "Save the file?" | limbeck translate runs/task/…/export
  limbeck translate export/ news.en --beam-size 4 > news.de
"""
BLOCK = 512


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and translate."""
    parser = command_parser("translate", __doc__, EXAMPLES)
    parser.add_argument("model", type=Path, help="an export folder or a CTranslate2 folder")
    parser.add_argument("files", nargs="*", help="text files, plain, gz or zst (default: standard input)")
    parser.add_argument("--beam-size", type=int, default=1)
    parser.add_argument("--float32", action="store_true", help="use the float32 model of an export, not the 8-bit one")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    return run_command(lambda: _translate(options))


def _translate(options: argparse.Namespace) -> int:
    translator, source, target = load_export(options.model, options.float32, options.threads)
    lines: Iterator[str]
    if options.files:
        lines = itertools.chain.from_iterable(map(read_lines, options.files))
    else:
        lines = (line.rstrip("\n") for line in sys.stdin)
    # A person who types wants each answer at once.
    block_size = 1 if sys.stdin.isatty() and not options.files else BLOCK
    while block := list(itertools.islice(lines, block_size)):
        pieces = source.encode(block, out_type=str)
        results = translator.translate_batch(pieces, beam_size=options.beam_size, disable_unk=True, max_batch_size=32)
        for line, result in zip(block, results, strict=True):
            text = target.decode(result.hypotheses[0]).replace("\n", " ") if line.strip() else ""
            print(text, flush=block_size == 1)
    return 0


def load_export(
    model: Path, float32: bool = False, threads: int = 1
) -> tuple["ctranslate2.Translator", "sentencepiece.SentencePieceProcessor", "sentencepiece.SentencePieceProcessor"]:
    """The translator and the source and target SentencePiece models of an export folder.

    Raises UserError when the folder holds none.
    """
    import ctranslate2
    import sentencepiece

    folder = model
    if (model / "ctranslate2").is_dir():
        folder = model / "ctranslate2" / ("float32" if float32 else "int8")
    if not (folder / "model.bin").is_file():
        raise UserError(f"{model} holds no model: an export folder or a CTranslate2 folder with model.bin is needed")
    vocabs = find_vocabs(folder, model)
    translator = ctranslate2.Translator(str(folder), inter_threads=1, intra_threads=threads)
    source, target = (sentencepiece.SentencePieceProcessor(model_file=str(vocab)) for vocab in vocabs)
    return translator, source, target


def find_vocabs(*folders: Path) -> tuple[Path, Path]:
    """The source and target `vocab.{lang}.spm` in the first folder that has them; metadata.json says which is which."""
    import json

    metadata = next((folder / "metadata.json" for folder in folders if (folder / "metadata.json").is_file()), None)
    for folder in folders:
        found = sorted(folder.glob("vocab.*.spm"))
        if len(found) == 2 and found[0].read_bytes() == found[1].read_bytes():
            return found[0], found[1]
        if len(found) == 2 and metadata:
            languages = json.loads(metadata.read_text(encoding="utf-8"))
            src, trg = languages["sourceLanguage"], languages["targetLanguage"]
            return folder / f"vocab.{src}.spm", folder / f"vocab.{trg}.spm"
    raise UserError(f"{folders[0]} holds no pair of vocab.{{language}}.spm files")


if __name__ == "__main__":
    sys.exit(main())
