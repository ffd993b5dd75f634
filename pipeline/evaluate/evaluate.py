"""Translate a test set with a model, score the translations, and measure the model's speed and size.

A model.npz is converted to CTranslate2 (float32) for the occasion; a CTranslate2 directory is taken as it is; several
model.npz are decoded as an ensemble; a folder that pipeline.continuation.external has written brings its own tokenizer
and is computed in the precision asked for. Quality is sacreBLEU's corpus chrF, BLEU and TER, and COMET where asked for;
speed and memory are measured on one thread in a process of their own, whatever the number of threads that translate.
With --shortlist both are of translating each batch among the shortlist's candidates.
"""

import argparse
import importlib.metadata
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.common.command import json_argument, run_command
from pipeline.common.errors import UserError
from pipeline.evaluate.arguments import add_speed_argument, add_test_set_arguments, check_speed
from pipeline.evaluate.comet import Comet
from pipeline.evaluate.loading import Source, count_parameters, load_translator, model_size
from pipeline.evaluate.measure import measure_model
from pipeline.evaluate.results import quality, read_test_set, summary_line, write_outputs
from pipeline.model.decoding import LONGEST, decoding_options
from pipeline.model.hardware import cpu_threads
from pipeline.model.shortlist import add_flags as add_shortlist_flags
from pipeline.model.shortlist import from_flags as shortlist_from_flags

EXAMPLE = """example:
  python -m pipeline.evaluate.evaluate --name student --model final.model.npz.best-chrf.npz --src en --trg de \\
    --src-vocab vocab.en.spm --trg-vocab vocab.de.spm --dataset gettext_django \\
    --references-src test.en.zst --references-trg test.de.zst --options '{"beam-size": 1}' --output-prefix out/django

writes out/django.metrics.json, out/django.de.zst (translations), out/django.en.zst and out/django.de.ref.zst"""

logger = logging.getLogger(__name__)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.evaluate.evaluate",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_test_set_arguments(parser)
    parser.add_argument(
        "--model",
        type=Path,
        action="extend",
        nargs="+",
        required=True,
        help="a model.npz (several: an ensemble), a CTranslate2 directory, or the folder of a model of another maker",
    )
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
    parser.add_argument(
        "--options",
        type=json_argument,
        default={},
        help="decoding options by Marian's names: beam-size (default 1), normalize (1), max-length (of a source, in "
        "pieces: 1000), max-length-factor (2)",
    )
    add_shortlist_flags(parser)
    parser.add_argument(
        "--threads", type=int, default=cpu_threads(), help="threads that translate (default: all processors)"
    )
    add_speed_argument(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(arguments)
    if args.threads < 1:
        raise UserError(f"--threads must be at least 1, found {args.threads}")
    check_speed(args.speed_seconds)

    options = decoding_options(args.options, beam_size=1, max_length=LONGEST)
    shortlist = shortlist_from_flags(args)
    comet = Comet(args.comet) if args.comet else None
    sources, references = read_test_set(args.references_src, args.references_trg)
    metrics: dict[str, Any] = {"name": args.name, "dataset": args.dataset, "src": args.src, "trg": args.trg}
    with tempfile.TemporaryDirectory(prefix="evaluate-") as temporary:
        source = Source(
            args.model, (args.src_vocab, args.trg_vocab), args.source_prefix, options, Path(temporary), shortlist
        )
        torch.set_num_threads(args.threads)
        translator = load_translator(source, args.threads)
        hypotheses = translator.translate_all(sources)
        metrics |= {"cut-sources": translator.count_cut(sources), "engine": translator.decoder.engine}
        del translator
        if args.speed_seconds:
            metrics["speed"], metrics["memory"] = measure_model(source, sources, args.src, args.speed_seconds)
    metrics |= quality(sources, hypotheses, references, args.trg, comet)
    metrics |= {
        "size-bytes": model_size(args.model),
        "parameters": count_parameters(args.model),
        "decoding": options.to_json() | ({"shortlist": shortlist.to_json()} if shortlist else {}),
        "versions": {package: importlib.metadata.version(package) for package in ("ctranslate2", "sacrebleu", "torch")},
    }
    write_outputs(args.output_prefix, metrics, sources, hypotheses, references)
    logger.info(summary_line(metrics))


if __name__ == "__main__":
    run_command(main)
