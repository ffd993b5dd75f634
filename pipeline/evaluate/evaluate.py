"""Translate a test set with a model, score the translations, and measure the model's speed and size.

A model.npz is converted to CTranslate2 (float32) for the occasion; a CTranslate2 directory is taken as it is; several
model.npz are decoded as an ensemble; a folder that pipeline.continuation.external has written brings its own tokenizer
and is computed in the precision asked for. Quality is sacreBLEU's corpus chrF and BLEU; speed is measured on one
thread, whatever the number of threads that translate.
"""

import argparse
import importlib.metadata
import logging
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.common.command import json_argument, run_command
from pipeline.common.corpus import read_parallel, write_columns
from pipeline.common.errors import UserError
from pipeline.common.files import write_json
from pipeline.evaluate.decoders import (
    CTranslate2Decoder,
    Decoder,
    ExternalDecoder,
    TorchDecoder,
    Translator,
)
from pipeline.evaluate.scoring import bleu, chrf
from pipeline.evaluate.speed import measure_speed
from pipeline.model import external
from pipeline.model.decoding import LONGEST, DecodingOptions, decoding_options
from pipeline.model.formats import ctranslate2 as ctranslate2_format
from pipeline.model.formats import npz
from pipeline.model.hardware import cpu_threads
from pipeline.model.transformer import parameter_shapes
from pipeline.model.vocab import Vocab, check_tag, load_same

EXAMPLE = """example:
  python -m pipeline.evaluate.evaluate --name student --model final.model.npz.best-chrf.npz --src en --trg de \\
    --src-vocab vocab.en.spm --trg-vocab vocab.de.spm --dataset gettext_django \\
    --references-src test.en.zst --references-trg test.de.zst --options '{"beam-size": 1}' --output-prefix out/django

writes out/django.metrics.json, out/django.de.zst (translations), out/django.en.zst and out/django.de.ref.zst"""

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.evaluate.evaluate",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--name", required=True, help="the model's name in the report")
    parser.add_argument(
        "--model",
        type=Path,
        action="extend",
        nargs="+",
        required=True,
        help="a model.npz (several: an ensemble), a CTranslate2 directory, or the folder of a model of another maker",
    )
    parser.add_argument("--src", required=True, help="source language")
    parser.add_argument("--trg", required=True, help="target language")
    for flag, side in (("--src-vocab", "source"), ("--trg-vocab", "target")):
        parser.add_argument(
            flag,
            type=Path,
            nargs="+",
            action="extend",
            default=[],
            help=f"SentencePiece model of the {side}; of an ensemble one, or one for each model",
        )
    parser.add_argument(
        "--source-prefix", default="", help="text in front of every source, such as >>deu<<, before it is segmented"
    )
    parser.add_argument("--dataset", required=True, help="the test set's name in the report")
    parser.add_argument("--references-src", type=Path, required=True, help="the test set's source sentences")
    parser.add_argument("--references-trg", type=Path, required=True, help="their reference translations")
    parser.add_argument(
        "--options",
        type=json_argument,
        default={},
        help="decoding options by Marian's names: beam-size (default 1), normalize (1), max-length (of a source, in "
        "pieces: 1000), max-length-factor (2)",
    )
    parser.add_argument(
        "--threads", type=int, default=cpu_threads(), help="threads that translate (default: all processors)"
    )
    parser.add_argument("--output-prefix", type=Path, required=True, help="path that the outputs' names begin with")
    args = parser.parse_args(arguments)
    if args.threads < 1:
        raise UserError(f"--threads must be at least 1, found {args.threads}")

    options = decoding_options(args.options, beam_size=1, max_length=LONGEST)
    sources, references = read_test_set(args.references_src, args.references_trg)
    with tempfile.TemporaryDirectory(prefix="evaluate-") as temporary:
        translator = load_translator(
            args.model,
            (args.src_vocab, args.trg_vocab),
            args.source_prefix,
            options,
            args.threads,
            Path(temporary),
        )
        torch.set_num_threads(args.threads)
        hypotheses = translator.translate_all(sources)
        torch.set_num_threads(1)
        speed = measure_speed(translator.translate, sources, args.src)
    size = model_size(args.model)
    metrics = {
        "name": args.name,
        "dataset": args.dataset,
        "src": args.src,
        "trg": args.trg,
        "sentences": len(sources),
        "cut-sources": translator.count_cut(sources),
        "chrf": chrf(hypotheses, references),
        "bleu": bleu(hypotheses, references, args.trg),
        "speed": speed,
        "size-bytes": size,
        "parameters": count_parameters(args.model),
        "engine": translator.decoder.engine,
        "decoding": options.to_json(),
        "versions": {package: importlib.metadata.version(package) for package in ("ctranslate2", "sacrebleu", "torch")},
    }
    write_outputs(args.output_prefix, metrics, sources, hypotheses, references)
    logger.info(
        f"{args.name} on {args.dataset}: chrF {metrics['chrf']['score']:.1f}, BLEU {metrics['bleu']['score']:.1f}, "
        f"{speed['words-per-second']:,.0f} words/s on one thread, {size / 1e6:,.1f} MB"
    )


def read_test_set(src_path: Path, trg_path: Path) -> tuple[list[str], list[str]]:
    """Sources and references, all in memory (test sets are small).

    Raises UserError when the sides differ in length or there is not one sentence with words.
    """
    pairs = list(read_parallel(src_path, trg_path))
    if not any(source.strip() for source, _ in pairs):
        raise UserError(f"the test set {src_path} has no sentences: at least one is needed to evaluate a model")
    return [source for source, _ in pairs], [reference for _, reference in pairs]


def load_translator(
    models: Sequence[Path],
    vocab_paths: tuple[Sequence[Path], Sequence[Path]],
    source_prefix: str,
    options: DecodingOptions,
    threads: int,
    temporary: Path,
) -> Translator:
    """What translates texts with a model, with the vocabularies given or with its own.

    Raises UserError when files are missing or do not fit each other, and when an option cannot be done.
    """
    for path in models:
        if not path.exists():
            raise UserError(f"the model {path} does not exist")
    if external.check_models(models, vocab_paths):
        decoder = ExternalDecoder(models[0], options, threads, source_prefix)
        return Translator(decoder, decoder.model.encode, decoder.model.decode, decoder.model.longest)
    vocabs = load_same(vocab_paths[0]), load_same(vocab_paths[1])
    check_tag(source_prefix, vocabs[0].all_pieces, str(vocab_paths[0][0]))
    return Translator.with_vocabs(
        load_decoder(models, vocab_paths[0][0], vocab_paths[1][0], vocabs, options, threads, temporary),
        vocabs,
        options,
        source_prefix,
    )


def load_decoder(
    models: Sequence[Path],
    src_vocab: Path,
    trg_vocab: Path,
    vocabs: tuple[Vocab, Vocab],
    options: DecodingOptions,
    threads: int,
    temporary: Path,
) -> Decoder:
    """The decoder of one model (a model.npz is converted into `temporary`), or of an ensemble.

    What CTranslate2 does not do (an ensemble, a recurrent decoder, repeatable samples) is done by torch.

    Raises UserError on vocabularies of other sizes, and on a directory in an ensemble or to be sampled from.
    """
    if len(models) > 1:
        if directory := next(filter(Path.is_dir, models), None):
            raise UserError(f"{directory} is a directory: the models of an ensemble must be model.npz files")
        return TorchDecoder(models, vocabs, options)
    if models[0].is_dir():
        if options.sampling:
            raise UserError(f"{models[0]} is a CTranslate2 directory: output-sampling needs a model.npz")
        return CTranslate2Decoder(models[0], vocabs, options, threads)
    if options.sampling or npz.load_config(models[0]).is_recurrent:
        return TorchDecoder(models, vocabs, options)
    directory = temporary / "ctranslate2"
    ctranslate2_format.save(npz.load(models[0]), directory, (src_vocab, trg_vocab))
    return CTranslate2Decoder(directory, vocabs, options, threads)


def model_size(models: Sequence[Path]) -> int:
    """Bytes on disk: of model.npz files, or of a CTranslate2 directory's files, without SentencePiece vocabularies; of
    all files of another maker's model."""
    paths = [file for path in models for file in (path.rglob("*") if path.is_dir() else [path])]
    whole = external.is_external(models[0])
    files = [file for file in paths if file.is_file() and (whole or file.suffix != ".spm")]
    return sum(file.stat().st_size for file in files)


def count_parameters(models: Sequence[Path]) -> int | None:
    """Trained parameters of model.npz files together; None for a CTranslate2 directory, which does not tell."""
    if any(path.is_dir() for path in models):
        return None
    return sum(math.prod(shape) for path in models for shape in parameter_shapes(npz.load_config(path)).values())


def write_outputs(
    prefix: Path, metrics: dict[str, Any], sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]
) -> None:
    """PREFIX.SRC.zst, PREFIX.TRG.zst (translations), PREFIX.TRG.ref.zst and, last, PREFIX.metrics.json."""
    endings = (f"{metrics['src']}.zst", f"{metrics['trg']}.zst", f"{metrics['trg']}.ref.zst")
    with write_columns(*(with_ending(prefix, ending) for ending in endings)) as writer:
        for row in zip(sources, hypotheses, references, strict=True):
            writer.write(*row)
    write_json(with_ending(prefix, "metrics.json"), metrics)


def with_ending(prefix: Path, ending: str) -> Path:
    return prefix.with_name(f"{prefix.name}.{ending}")


if __name__ == "__main__":
    run_command(main)
