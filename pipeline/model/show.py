"""Show what a file holds that an engine loads: a model of Marian (.bin, .npz), or a lexical shortlist (.bin).

Of a model: each array with its type, shape and largest absolute value, matrices in eight bits with their scale, alphas,
and the architecture. Of a binary shortlist: its entries as `target source`, in pieces when the vocabularies are given.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline.common.command import run_command
from pipeline.common.errors import UserError
from pipeline.model.formats import lexicon, npz
from pipeline.model.formats import marian_binary as binary
from pipeline.model.vocab import Vocab

EXAMPLE = """examples:
  python -m pipeline.model.show model.ende.intgemm.alphas.bin
  python -m pipeline.model.show lex.50.50.ende.s2t.bin --src-vocab vocab.ende.spm --trg-vocab vocab.ende.spm
"""


def show_model(path: Path) -> Iterator[str]:
    """Lines about a model file. Raises UserError when it is none, or damaged."""
    if path.suffix == ".npz":
        items = [
            binary.Item(name, _type(array), array.shape, array.tobytes())
            for name, array in npz.load_arrays(path).items()
        ]
    else:
        items = binary.read(path)
    for item in items:
        if item.name == npz.CONFIG_NAME:
            continue
        values = item.values
        parts = [item.type.name.lower(), "x".join(map(str, item.shape))]
        parts.append(
            f"value {float(values.reshape(-1)[0]):.6g}" if values.size == 1 else f"largest {np.abs(values).max():.6g}"
        )
        if item.type == binary.Type.INTGEMM8:
            parts.append(f"scale {item.scale:.6g}")
        yield "\t".join([item.name, *parts])
    for item in items:
        if item.name == npz.CONFIG_NAME:
            yield ""
            yield bytes(item.data).rstrip(b"\0").decode("utf-8", "replace").rstrip("\n")


def _type(array: npz.Array) -> binary.Type:
    return binary.Type.INT8 if array.dtype.itemsize == 1 else binary.Type.FLOAT32


def show(path: Path, src_vocab: Path | None = None, trg_vocab: Path | None = None) -> Iterator[str]:
    """Lines about a file. Raises UserError when it is none of those that are known, or damaged."""
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    with path.open("rb") as file:
        magic = int.from_bytes(file.read(8), "little")
    if magic != lexicon.MAGIC:
        return show_model(path)
    vocabs = [Vocab.load(vocab) if vocab else None for vocab in (src_vocab, trg_vocab)]
    return lexicon.lines(lexicon.read(path), *vocabs)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="model or binary shortlist")
    parser.add_argument("--src-vocab", type=Path, help="vocabulary of the source language, for a shortlist")
    parser.add_argument("--trg-vocab", type=Path, help="vocabulary of the target language, for a shortlist")
    args = parser.parse_args(arguments)
    try:
        for line in show(args.file, args.src_vocab, args.trg_vocab):
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    run_command(main)
