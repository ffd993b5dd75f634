"""Score translations that another engine made, such as a browser's, in the form of pipeline.evaluate.evaluate.

What only the engine itself can know, its speed, can be handed over with how it was measured.
"""

import argparse
import importlib.metadata
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.common.command import run_command
from pipeline.common.corpus import read_columns
from pipeline.common.errors import UserError
from pipeline.common.files import read_json
from pipeline.evaluate.arguments import add_test_set_arguments
from pipeline.evaluate.comet import Comet
from pipeline.evaluate.results import quality, read_test_set, summary_line, write_outputs

EXAMPLE = """example:
  python -m pipeline.evaluate.score_translations --name student-browser --engine "bergamot int8" \\
    --dataset flores_devtest --src en --trg de --references-src flores.en.zst --references-trg flores.de.zst \\
    --translations browser.de.txt --model model.ende.intgemm.alphas.bin lex.50.50.ende.s2t.bin \\
    --speed speed.json --output-prefix out/flores

speed.json: {"words-per-second": 5200.0, "threads": 1, "measured": "in Chromium, batches of 16, warm"}"""
logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.evaluate.score_translations",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_test_set_arguments(parser)
    parser.add_argument("--engine", required=True, help='what translated: "bergamot int8"')
    parser.add_argument("--translations", type=Path, required=True, help="the engine's translations of the sources")
    parser.add_argument(
        "--model", type=Path, nargs="+", default=[], help="the files that the engine loads, for the size"
    )
    parser.add_argument("--speed", type=Path, help="JSON: what the engine measured of its speed, and how")
    args = parser.parse_args(arguments)

    comet = Comet(args.comet) if args.comet else None
    sources, references = read_test_set(args.references_src, args.references_trg)
    hypotheses = [translation for _, translation in read_columns(args.references_src, args.translations)]
    metrics: dict[str, Any] = {
        "name": args.name,
        "dataset": args.dataset,
        "src": args.src,
        "trg": args.trg,
        "engine": args.engine,
        **quality(sources, hypotheses, references, args.trg, comet),
        "parameters": None,
        "decoding": {},
        "versions": {"sacrebleu": importlib.metadata.version("sacrebleu")},
    }
    if args.model:
        if absent := next((path for path in args.model if not path.is_file()), None):
            raise UserError(f"the model file {absent} does not exist")
        metrics["size-bytes"] = sum(path.stat().st_size for path in args.model)
        metrics["measured"] = {"size-bytes": f"{', '.join(path.name for path in args.model)} on disk"}
    if args.speed:
        speed = read_speed(args.speed)
        metrics.setdefault("measured", {})["speed"] = speed.pop("measured")
        metrics["speed"] = speed
    write_outputs(args.output_prefix, metrics, sources, hypotheses, references)
    logger.info(summary_line(metrics))


def read_speed(path: Path) -> dict[str, Any]:
    """What an engine says of its speed. Raises UserError when the figure is missing, or how it was measured."""
    speed = read_json(path)
    if not isinstance(speed, dict) or not isinstance(speed.get("measured"), str):
        raise UserError(f'{path} must be a JSON object that says under "measured" how its figures were measured')
    words = speed.get("words-per-second")
    if isinstance(words, bool) or not isinstance(words, int | float) or words <= 0:
        raise UserError(f"{path} must have words-per-second, a positive number; found {words!r}")
    return speed


if __name__ == "__main__":
    run_command(main)
