"""Write the report of a run: one HTML page that works offline, and the same figures as JSON.

The page tells what was lost and gained between teacher and student (quality, speed, size), how the models were trained,
what became of the data, and how a few sentences come out. Whatever was not handed over is left out of the page.
"""

import argparse
import importlib.metadata
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.common.command import run_command
from pipeline.common.comparison import changes, robustness, test_sets
from pipeline.common.errors import UserError
from pipeline.common.figures import finite, read_metrics, read_significance
from pipeline.common.files import read_json, read_lines, write_json, write_lines
from pipeline.evaluate.page_training import is_number
from pipeline.evaluate.report_html import render_page
from pipeline.evaluate.samples import read_translations, sample_translations, worst_translations

EXAMPLE = """example:
  python -m pipeline.evaluate.report --name demo --src en --trg de \\
    --funnel cleaned/corpus.stats.json --training student student/train.jsonl \\
    --metrics teacher.metrics.json --metrics student.metrics.json \\
    --sources student.en.zst --references student.de.ref.zst --hypotheses student student.de.zst \\
    --output-html report.html --output-json report.json"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.evaluate.report",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    several: dict[str, Any] = {"action": "extend", "nargs": "+", "type": Path, "default": [], "metavar": "F"}
    pairs: dict[str, Any] = {"action": "append", "nargs": 2, "default": [], "metavar": ("NAME", "F")}
    parser.add_argument("--name", required=True, help="the experiment's name")
    parser.add_argument("--src", required=True, help="source language")
    parser.add_argument("--trg", required=True, help="target language")
    parser.add_argument("--funnel", **several, help="stats.json of a data step; repeatable")
    parser.add_argument("--training", **pairs, help="a model's name and its train.jsonl; repeatable")
    parser.add_argument("--metrics", **several, help="metrics.json of pipeline.evaluate.evaluate; repeatable")
    parser.add_argument(
        "--significance", **several, help="significance.json of pipeline.evaluate.significance; repeatable"
    )
    parser.add_argument("--durations", type=Path, help="JSON with the seconds of every stage; left out if absent")
    parser.add_argument("--hypotheses", **pairs, help="a model's name and its translations of one test set; repeatable")
    parser.add_argument("--sources", type=Path, help="the sentences of that test set")
    parser.add_argument("--references", type=Path, help="their reference translations")
    parser.add_argument("--output-html", type=Path, required=True, help="the page to write")
    parser.add_argument("--output-json", type=Path, required=True, help="the same figures as JSON")
    args = parser.parse_args(arguments)
    report = build_report(
        name=args.name,
        src=args.src,
        trg=args.trg,
        funnel=args.funnel,
        training=[(name, Path(path)) for name, path in args.training],
        metrics=args.metrics,
        hypotheses=[(name, Path(path)) for name, path in args.hypotheses],
        sources=args.sources,
        references=args.references,
        significance=args.significance,
        durations=args.durations,
    )
    page = render_page(report)
    write_json(args.output_json, report)
    with write_lines(args.output_html) as writer:
        for line in page.removesuffix("\n").split("\n"):
            writer.write(line)


def build_report(
    name: str,
    src: str,
    trg: str,
    funnel: Sequence[Path] = (),
    training: Sequence[tuple[str, Path]] = (),
    metrics: Sequence[Path] = (),
    hypotheses: Sequence[tuple[str, Path]] = (),
    sources: Path | None = None,
    references: Path | None = None,
    significance: Sequence[Path] = (),
    durations: Path | None = None,
) -> dict[str, Any]:
    """Everything the page shows.

    {"name", "src", "trg", "limbeck": version, "metrics": [contents of metrics.json],
    "significance": [contents of significance.json], "changes" and "robustness": as pipeline.common.comparison gives
    them, "pareto": [{"dataset", "src", "trg", "models": [names on the front, from slow to fast]}],
    "training": {model: [validation]}, "funnel": [{"file", "stats"}],
    "samples": [{"source", "reference", "hypotheses": {model: text}, "chrf": {model: score}}],
    "worst": as pipeline.evaluate.samples gives it, "durations": {stage: seconds}}

    Raises UserError on a file that is absent or not what it should be, or a model that is named twice.
    """
    for flag, names in (
        ("--training", [name for name, _ in training]),
        ("--hypotheses", [name for name, _ in hypotheses]),
    ):
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UserError(f"{flag} names the model {twice!r} twice: every model needs a name of its own")
    figures = [read_metrics(path) for path in metrics]
    tests = [read_significance(path) for path in significance]
    translations = read_translations(sources, references, hypotheses)
    return {
        "name": name,
        "src": src,
        "trg": trg,
        "limbeck": importlib.metadata.version("limbeck"),
        "metrics": figures,
        "significance": tests,
        "changes": changes(figures, tests),
        "pareto": [
            {
                "dataset": test_set.dataset,
                "src": test_set.src,
                "trg": test_set.trg,
                "models": [entry["name"] for entry in test_set.pareto()],
            }
            for test_set in test_sets(figures)
        ],
        "robustness": robustness(figures),
        "training": {model: read_training(path) for model, path in training},
        "funnel": [
            {"file": file, "stats": finite(read_json(path))}
            for file, path in zip(step_names(funnel), funnel, strict=True)
        ],
        "samples": sample_translations(translations),
        "worst": worst_translations(translations),
        "durations": read_durations(durations) if durations else {},
    }


def read_durations(path: Path) -> dict[str, float]:
    """Seconds by stage; none of them where there is no such file, which not every engine writes.

    Raises UserError on anything but numbers that are not negative.
    """
    if not path.exists():
        return {}
    durations = read_json(path)
    if not isinstance(durations, dict) or not all(is_number(value) and value >= 0 for value in durations.values()):
        raise UserError(f'{path} must hold the seconds of every stage, such as {{"train-teacher-model": 5400}}')
    return durations


def read_training(path: Path) -> list[dict[str, Any]]:
    """The validations of a train.jsonl, in order. Raises UserError on a line that is not a JSON object."""
    records = []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}, is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise UserError(f"{path}, line {number}, must be a JSON object with a validation's figures")
        records.append(finite(record))
    return records


def step_names(paths: Sequence[Path]) -> list[str]:
    """Names of data steps: their files' without the endings, with as much of the folders as tells them apart."""
    stems = [path.name.removesuffix(".json").removesuffix(".stats") for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    folder = os.path.commonpath([path.resolve().parent for path in paths])
    return [
        stem if stems.count(stem) == 1 else f"{path.resolve().parent.relative_to(folder)}/{stem}".removeprefix("./")
        for stem, path in zip(stems, paths, strict=True)
    ]


if __name__ == "__main__":
    run_command(main)
