"""Convert a model from one format to another, and show that what was written computes what was read.

IN is a model.npz, a model directory of Marian or of the training step, an OPUS-MT directory or zip file, or a directory
of Hugging Face's MarianMTModel; which of them it is shows in its files. OUT is the folder to write:

  npz                   model.npz, source.spm, target.spm and decoder.yml, as Marian and every step here read them
  ctranslate2           for CTranslate2, float32
  ctranslate2-float16   the same in half the size, for GPUs
  ctranslate2-int8      the same in a quarter of the size
  huggingface           for transformers, with a class that is exact beside the plain one (extra [huggingface])

A conversion ends with a comparison: both engines translate, and both give log-probabilities of the same translations.
Give --sentences to have it on real text, and --references to see what a loss is in chrF; without them it is on rows of
random pieces. Below the bar nothing is written, and the command fails.
"""

import argparse
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.common.command import run_command
from pipeline.common.errors import UserError
from pipeline.common.files import read_json
from pipeline.model import parity
from pipeline.model.formats import ctranslate2 as ctranslate2_format
from pipeline.model.formats import huggingface, huggingface_check, marian, npz
from pipeline.model.formats.pieces import EOS, UNK
from pipeline.model.transformer import Transformer
from pipeline.model.vocab import EOS_ID, UNK_ID, Vocab

logger = logging.getLogger(__name__)

EXAMPLE = """examples:
  python -m pipeline.model.convert opus-2020-02-26.zip en-de --to npz
  python -m pipeline.model.convert final.model.npz.best-chrf.npz student-int8 --to ctranslate2-int8 --sentences dev.en
  python -m pipeline.model.convert en-de student-hf --to huggingface --sentences dev.en --references dev.de
"""

QUANTIZATIONS = {"ctranslate2": "float32", "ctranslate2-float16": "float16", "ctranslate2-int8": "int8"}
FORMATS = ("npz", *QUANTIZATIONS, "huggingface")


@dataclass(frozen=True)
class Source:
    """What was read: a model and its vocabularies, and the weights as stored when they are Marian's and unchanged."""

    format: str
    model: Transformer
    vocabs: tuple[Path, Path]
    weights: Mapping[str, npz.Array] | None = None


def read(path: Path, folder: Path, vocabs: tuple[Path, Path] | None = None) -> Source:
    """Read a model of any format; vocabularies that are not given are those of its files, written into `folder`.

    Raises UserError when it is of no known format, or not whole.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if path.is_dir() and (path / "config.json").is_file():
        if (path / "model.bin").is_file():
            raise UserError(
                f"{path} is a CTranslate2 model, from which there is no way back: its matrices are joined and rounded; "
                "convert the model.npz that it was made from"
            )
        return Source("Hugging Face", huggingface.load(path), huggingface.write_vocabs(path, folder))
    if vocabs and path.suffix == ".npz":
        return Source("npz", npz.load(path), vocabs, npz.load_arrays(path))
    if vocabs:
        raise UserError(f"{path} has vocabularies of its own: --src-vocab and --trg-vocab are for a model.npz")
    return Source("Marian", marian.load(path), marian.write_vocabs(path, folder), marian.load_weights(path))


def write(source: Source, path: Path, to: str, languages: tuple[str, str] | None, sample: parity.Sample) -> None:
    """Write a model in a format, and compare. Raises UserError when the format cannot hold it, or the comparison
    fails."""
    if to == "npz":
        marian.save(source.model, path, source.vocabs, source.weights, sample)
    elif to == "huggingface":
        huggingface.save(source.model, path, source.vocabs, languages, sample)
    else:
        ctranslate2_format.save(source.model, path, source.vocabs, QUANTIZATIONS[to], sample)


def show_import(source: Source, path: Path, sample: parity.Sample) -> None:
    """Log how what was read compares with transformers' own computation of it. There is nothing here that could compute
    Marian's files but what read them; of those the segmentation is compared. Raises UserError when the exact class of
    transformers computes something else."""
    if source.format == "Marian" and sample.texts:
        same = marian.same_segmentation(path, sample.texts)
        logger.info(f"{same}/{len(sample.texts)} sentences are segmented as for Marian")
    if source.format != "Hugging Face":
        return
    rows = read_json(path / "vocab.json")
    if (rows.get(EOS), rows.get(UNK)) != (EOS_ID, UNK_ID):
        logger.info(f"{path.name} numbers its pieces otherwise, so what was read cannot be compared with it id by id")
        return
    reference = parity.TorchEngine(source.model)
    for exact in (True, False):
        engine = huggingface_check.HuggingFaceEngine(path, exact)
        found = parity.compare(reference, engine, sample)
        logger.info(f"{path.name} in {engine.name}, against what was read of it, {found.describe()}")
        if exact:
            parity.EXACT.check(found, f"what was read of {path}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", metavar="IN", type=Path, help="the model to convert")
    parser.add_argument("output", metavar="OUT", type=Path, help="folder to write")
    parser.add_argument("--to", choices=FORMATS, required=True, help="format to write")
    parser.add_argument("--src-vocab", type=Path, help="vocabulary (.spm) of a model.npz that has none beside it")
    parser.add_argument("--trg-vocab", type=Path, help="the same, of the target language")
    parser.add_argument("--sentences", type=Path, help="text of the source language to compare on (plain, .gz, .zst)")
    parser.add_argument("--references", type=Path, help="its translations, for chrF")
    parser.add_argument("--src", help="source language, for the README of huggingface")
    parser.add_argument("--trg", help="target language")
    args = parser.parse_args(arguments)
    for one, other in (("src", "trg"), ("src_vocab", "trg_vocab")):
        if bool(getattr(args, one)) != bool(getattr(args, other)):
            raise UserError(f"--{one.replace('_', '-')} and --{other.replace('_', '-')} are needed together")
    if args.references and not args.sentences:
        raise UserError("--references are translations of --sentences: give both")
    if args.output.exists() and not args.output.is_dir():
        raise UserError(f"{args.output} is a file: OUT is a folder to write")
    if args.output.suffix == ".npz":
        raise UserError(f"OUT is a folder, which will have a model.npz in it: {args.output} looks like a file")
    with tempfile.TemporaryDirectory(prefix="convert-") as folder:
        given = (args.src_vocab, args.trg_vocab) if args.src_vocab else None
        source = read(args.input, Path(folder), given)
        logger.info(f"read {args.input} ({source.format})")
        vocab = Vocab.load(source.vocabs[0])
        if args.sentences:
            sample = parity.read_sample(vocab, args.sentences, args.references)
        else:
            sample = parity.random_sample(len(vocab))
        show_import(source, args.input, sample)
        write(source, args.output, args.to, (args.src, args.trg) if args.src else None, sample)
    logger.info(f"wrote {args.output} ({args.to})")


if __name__ == "__main__":
    run_command(main)
