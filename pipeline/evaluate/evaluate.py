"""Translate a test set with a model, score the translations, and measure the model's speed and size.

A model.npz is converted to CTranslate2 (float32) for the occasion; a CTranslate2 directory is taken as it is; several
model.npz are decoded as an ensemble; a folder that pipeline.continuation.external has written brings its own tokenizer
and is computed in the precision asked for. Quality is sacreBLEU's corpus chrF, BLEU and TER, and COMET where asked for;
speed and memory are measured on one thread in a process of their own, whatever the number of threads that translate.
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
from pipeline.common.corpus import read_parallel, write_columns
from pipeline.common.errors import UserError
from pipeline.common.files import write_json
from pipeline.evaluate.comet import Comet
from pipeline.evaluate.loading import Source, count_parameters, load_translator, model_size
from pipeline.evaluate.measure import MEMORY_MEASURED, SPEED_MEASURED, measure_model
from pipeline.evaluate.scoring import bleu, chrf, ter
from pipeline.evaluate.speed import SECONDS
from pipeline.model.decoding import LONGEST, decoding_options
from pipeline.model.hardware import cpu_threads

EXAMPLE = """example:
  python -m pipeline.evaluate.evaluate --name student --model final.model.npz.best-chrf.npz --src en --trg de \\
    --src-vocab vocab.en.spm --trg-vocab vocab.de.spm --dataset gettext_django \\
    --references-src test.en.zst --references-trg test.de.zst --options '{"beam-size": 1}' --output-prefix out/django

writes out/django.metrics.json, out/django.de.zst (translations), out/django.en.zst and out/django.de.ref.zst"""

# How the figures of metrics.json came about, by their keys.
MEASURED = {
    "chrf": "sacreBLEU's corpus chrF over all lines, as its signature says",
    "bleu": "sacreBLEU's corpus BLEU over all lines, as its signature says",
    "ter": "sacreBLEU's corpus TER over all lines, as its signature says; lower is better; null where a language has "
    "no words that it can split",
    "comet": "system score of the COMET model that its signature names",
    "speed": SPEED_MEASURED,
    "memory": MEMORY_MEASURED,
    "size-bytes": "the model's files on disk, without SentencePiece vocabularies; all files of another maker's model",
    "parameters": "trained numbers, counted from the model's architecture; null where the files do not tell it",
    "cut-sources": "sources with more pieces than max-length, whose ends are not translated",
}

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
    parser.add_argument(
        "--comet", metavar="MODEL", help="also score by COMET: a checkpoint's path, or a name on Hugging Face's hub"
    )
    parser.add_argument(
        "--speed-seconds",
        type=float,
        default=SECONDS,
        help=f"about how long speed is measured (default: {SECONDS:g}); 0 leaves out speed and memory",
    )
    parser.add_argument("--output-prefix", type=Path, required=True, help="path that the outputs' names begin with")
    args = parser.parse_args(arguments)
    if args.threads < 1:
        raise UserError(f"--threads must be at least 1, found {args.threads}")

    if args.speed_seconds < 0:
        raise UserError(f"--speed-seconds must not be negative, found {args.speed_seconds:g}")

    options = decoding_options(args.options, beam_size=1, max_length=LONGEST)
    comet = Comet(args.comet) if args.comet else None
    sources, references = read_test_set(args.references_src, args.references_trg)
    metrics: dict[str, Any] = {
        "name": args.name,
        "dataset": args.dataset,
        "src": args.src,
        "trg": args.trg,
        "sentences": len(sources),
    }
    with tempfile.TemporaryDirectory(prefix="evaluate-") as temporary:
        source = Source(args.model, (args.src_vocab, args.trg_vocab), args.source_prefix, options, Path(temporary))
        torch.set_num_threads(args.threads)
        translator = load_translator(source, args.threads)
        hypotheses = translator.translate_all(sources)
        metrics |= {
            "cut-sources": translator.count_cut(sources),
            "chrf": chrf(hypotheses, references),
            "bleu": bleu(hypotheses, references, args.trg),
            "ter": ter(hypotheses, references, args.trg),
            "engine": translator.decoder.engine,
        }
        del translator
        if args.speed_seconds:
            metrics["speed"], metrics["memory"] = measure_model(source, sources, args.src, args.speed_seconds)
    if comet:
        metrics["comet"] = comet.score(sources, hypotheses, references)
    metrics |= {
        "size-bytes": model_size(args.model),
        "parameters": count_parameters(args.model),
        "decoding": options.to_json(),
        "versions": {package: importlib.metadata.version(package) for package in ("ctranslate2", "sacrebleu", "torch")},
    }
    metrics["measured"] = {key: how for key, how in MEASURED.items() if key in metrics}
    write_outputs(args.output_prefix, metrics, sources, hypotheses, references)
    logger.info(summary_line(metrics))


def summary_line(metrics: dict[str, Any]) -> str:
    """The figures in one line for the log."""
    parts = [f"chrF {metrics['chrf']['score']:.1f}", f"BLEU {metrics['bleu']['score']:.1f}"]
    if "speed" in metrics:
        parts.append(f"{metrics['speed']['words-per-second']:,.0f} words/s on one thread")
        parts.append(f"{metrics['memory']['peak-rss-bytes'] / 1e6:,.0f} MB of memory")
    parts.append(f"{metrics['size-bytes'] / 1e6:,.1f} MB on disk")
    return f"{metrics['name']} on {metrics['dataset']}: {', '.join(parts)}"


def read_test_set(src_path: Path, trg_path: Path) -> tuple[list[str], list[str]]:
    """Sources and references, all in memory (test sets are small).

    Raises UserError when the sides differ in length or there is not one sentence with words.
    """
    pairs = list(read_parallel(src_path, trg_path))
    if not any(source.strip() for source, _ in pairs):
        raise UserError(f"the test set {src_path} has no sentences: at least one is needed to evaluate a model")
    return [source for source, _ in pairs], [reference for _, reference in pairs]


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
