"""Translate a test set with the browser's own engine, score the translations, and measure speed, memory and size.

The model is a folder that pipeline.export.browser has written; Bergamot's WebAssembly translates with it in Node, on
one thread, as it does in a page. The first time npm installs it. The outputs are those of pipeline.evaluate.evaluate.
"""

import argparse
import importlib.metadata
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.common.command import run_command
from pipeline.common.errors import UserError
from pipeline.common.progress import Progress
from pipeline.evaluate.arguments import add_speed_argument, add_test_set_arguments, check_speed
from pipeline.evaluate.comet import Comet
from pipeline.evaluate.measure import SPEED_MEASURED
from pipeline.evaluate.results import quality, read_test_set, summary_line, write_outputs
from pipeline.evaluate.speed import BATCH_SIZE, length_batches, measure_speed
from pipeline.model.browser_engine import BrowserEngine, ModelFiles, engine_version
from pipeline.model.vocab import one_line

EXAMPLE = """example:
  python -m pipeline.evaluate.browser --name student-browser --model export/browser --src en --trg de \\
    --dataset gettext_django --references-src test.en.zst --references-trg test.de.zst --output-prefix out/django

writes out/django.metrics.json, out/django.de.zst (translations), out/django.en.zst and out/django.de.ref.zst"""

# The engine's options that decide a translation.
DECODING = ("beam-size", "normalize", "max-length-break", "max-length-factor")
WARM_UP = 0.25  # of the seconds of measuring, before them
MEASURED = {
    "parameters": "trained numbers, as the export's metadata.json has them",
    "cut-sources": "none: what is longer than max-length-break pieces is translated in parts",
    "speed": f"{SPEED_MEASURED}; in Node, by WebAssembly, after it has been compiled and optimised",
    "memory": "resident memory of the Node process that only measures the speed: peak-rss-bytes its peak, "
    "before-loading-bytes what Node and the engine took before the model was loaded, model-bytes the difference",
}

logger = logging.getLogger(__name__)


def translate_all(engine: BrowserEngine, sentences: Sequence[str]) -> list[str]:
    """Translate a test set in batches of sentences of similar length, which share the candidates of a shortlist."""
    translations = [""] * len(sentences)
    progress = Progress("translating", "sentences", total=len(sentences))
    for batch in length_batches(sentences, BATCH_SIZE):
        found = engine.translate([sentences[index] for index in batch])
        for index, text in zip(batch, found, strict=True):
            translations[index] = one_line(text)
        progress.add(len(batch))
    progress.finish()
    return translations


def measure(
    files: ModelFiles, sentences: Sequence[str], language: str, seconds: float
) -> tuple[dict[str, Any], dict[str, int]]:
    """The "speed" and the "memory" of metrics.json, in a fresh process of the engine."""
    with BrowserEngine(files) as engine:
        # WebAssembly is compiled quickly first, and optimised where it runs long.
        batches = [[sentences[index] for index in batch] for batch in length_batches(sentences, BATCH_SIZE)]
        start = time.perf_counter()
        while time.perf_counter() - start < WARM_UP * seconds:
            engine.translate(batches[0])
        speed = measure_speed(engine.translate, sentences, language, seconds)
        peak = engine.peak_memory()
        before = engine.before_loading
    return speed, {"peak-rss-bytes": peak, "before-loading-bytes": before, "model-bytes": peak - before}


def decoding(files: ModelFiles) -> dict[str, Any]:
    """The "decoding" of metrics.json."""
    shortlist = {"shortlist": files.metadata["shortlist"]} if files.shortlist else {}
    return {name: files.options[name] for name in DECODING if name in files.options} | shortlist


def check_languages(files: ModelFiles, src: str, trg: str) -> None:
    """Raises UserError when the model translates between other languages."""
    found = files.metadata.get("src"), files.metadata.get("trg")
    if found != (src, trg):
        raise UserError(f"{files.model.parent} translates from {found[0]} to {found[1]}, not from {src} to {trg}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.evaluate.browser",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_test_set_arguments(parser)
    parser.add_argument("--model", type=Path, required=True, help="a folder that pipeline.export.browser has written")
    add_speed_argument(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(arguments)
    check_speed(args.speed_seconds)
    files = ModelFiles.of_export(args.model)
    check_languages(files, args.src, args.trg)
    comet = Comet(args.comet) if args.comet else None
    sources, references = read_test_set(args.references_src, args.references_trg)
    with BrowserEngine(files) as engine:
        hypotheses = translate_all(engine, sources)
    metrics: dict[str, Any] = {"name": args.name, "dataset": args.dataset, "src": args.src, "trg": args.trg}
    metrics |= {"cut-sources": 0, "engine": f"bergamot wasm {engine_version()} {files.precision}"}
    if args.speed_seconds:
        metrics["speed"], metrics["memory"] = measure(files, sources, args.src, args.speed_seconds)
    metrics |= quality(sources, hypotheses, references, args.trg, comet)
    metrics |= {
        "size-bytes": files.model.stat().st_size,
        "parameters": files.metadata.get("parameters"),
        "decoding": decoding(files),
        "versions": {"bergamot": engine_version(), "sacrebleu": importlib.metadata.version("sacrebleu")},
    }
    metrics["measured"] = {key: how for key, how in MEASURED.items() if key in metrics}
    write_outputs(args.output_prefix, metrics, sources, hypotheses, references)
    logger.info(summary_line(metrics))


if __name__ == "__main__":
    run_command(main)
