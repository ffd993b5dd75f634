"""Put the models of several runs side by side: quality, speed and size on every test set, with the differences.

A run is named by its id (or its beginning) in the folder of runs, or by the path of a report.json. Differences are seen
from the first run.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from limbeck_engines.base import Engine
from limbeck_engines.store import Store
from limbeck_engines.task import DONE
from pipeline.common.comparison import Metrics, TestSet, robustness, role, score, test_sets, words_per_second
from pipeline.common.errors import UserError
from pipeline.common.figures import read_metrics
from pipeline.common.files import read_json, write_lines
from pipeline.evaluate.page_style import SCRIPT, STYLE
from pipeline.evaluate.page_table import cell, name_cell, sortable_table
from utils.common import add_runs_argument, command_parser, find_group, open_engine, open_store, run_command
from utils.places import read_json_at

EXAMPLES = """examples:
  limbeck compare VfLPTQDl Qn3Xk0aB
  limbeck compare VfLPTQDl elsewhere/report.json --html compared.html
"""
_ROLES = ("teacher", "student", "finetuned", "unfinetuned", "quantized", "backward", "other")
_MAIN_ROLES = ("teacher", "student", "finetuned", "quantized")


class Figure(NamedTuple):
    """What is compared, how a person reads it, and whether its difference is a factor rather than points."""

    key: str
    title: str
    shown: str = "{:.1f}"
    is_ratio: bool = False


FIGURES: dict[Figure, Callable[[Metrics], float | None]] = {
    Figure("chrf", "chrF"): lambda entry: score(entry, "chrf"),
    Figure("bleu", "BLEU"): lambda entry: score(entry, "bleu"),
    Figure("ter", "TER"): lambda entry: score(entry, "ter"),
    Figure("words-per-second", "words/s", "{:,.0f}", is_ratio=True): words_per_second,
    Figure("size-mb", "size MB", "{:,.1f}", is_ratio=True): lambda entry: (
        size / 1e6 if (size := entry.get("size-bytes")) else None
    ),
}


@dataclass(frozen=True)
class Run:
    """A run's figures: the contents of its metrics.json files."""

    name: str
    metrics: Sequence[Metrics]


@dataclass(frozen=True)
class Row:
    """One figure of one model on one test set, in every run; None where a run has none."""

    dataset: str
    direction: str
    model: str
    figure: Figure
    values: tuple[float | None, ...]

    def differences(self) -> list[float | None]:
        """Each run's value less the first one's, or divided by it; None for the first."""
        first, *others = self.values
        return [None, *(self._difference(first, value) for value in others)]

    def _difference(self, first: float | None, value: float | None) -> float | None:
        if first is None or value is None or (self.figure.is_ratio and not first):
            return None
        return value / first if self.figure.is_ratio else value - first

    def texts(self) -> list[tuple[str, str]]:
        """Each run's value and difference for a person."""
        return [
            ("-" if value is None else self.figure.shown.format(value), self._shown(difference))
            for value, difference in zip(self.values, self.differences(), strict=True)
        ]

    def _shown(self, difference: float | None) -> str:
        if difference is None:
            return ""
        return f"×{difference:.2f}" if self.figure.is_ratio else f"{difference:+.1f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and print the table, or its figures as JSON."""
    parser = command_parser("compare", __doc__, EXAMPLES)
    parser.add_argument("names", nargs="+", metavar="RUN", help="id of a run, or its beginning, or a report.json")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write the table as a page")
    add_runs_argument(parser)
    options = parser.parse_args(arguments)
    return run_command(lambda: _compare(options))


def _compare(options: argparse.Namespace) -> int:
    if len(options.names) < 2:
        raise UserError("name at least two runs, such as: limbeck compare VfLPTQDl Qn3Xk0aB")
    runs = [read_run(name, open_store(options.runs), options.runs) for name in options.names]
    rows, notes = list(compare_runs(runs)), list(differing_conditions(runs))
    if options.json:
        print(json.dumps(as_json(runs, rows, notes), indent=2, ensure_ascii=False))
    else:
        print(as_text(runs, rows))
        print("".join(f"\nnote: {note}" for note in notes).removeprefix("\n"), end="\n" if notes else "")
    if options.html:
        with write_lines(options.html) as writer:
            for line in as_page(runs, rows, notes).split("\n"):
                writer.write(line)
    return 0


def read_run(name: str, store: Store | None, runs: Path) -> Run:
    """The figures of the run that the command line names, from its report, or else from its evaluations.

    Raises UserError when there is no such run or file, or no model was evaluated there.
    """
    path = Path(name)
    if path.suffix == ".json" or path.is_file():
        return _read_report(path)
    if store is None:
        raise UserError(f"nothing has run in {runs} yet, and {name} is no report.json: name the folder with --runs")
    group = find_group(store, name)
    title = f"{group.group_id[:8]} {group.name}"
    if group.url:
        return _run_elsewhere(title, open_engine(store, group), group.group_id)
    rows = [row for _, row in sorted(store.run_tasks(group.group_id).items()) if row.state in DONE]
    folders = {row.label: store.run_folder(row.task_id) for row in rows}
    artifacts = {label: folder / "artifacts" / "public" / "build" for label, folder in folders.items() if folder}
    reports = [folder / "report.json" for label, folder in artifacts.items() if label.startswith("report-")]
    if reports:
        return Run(title, _read_report(reports[0]).metrics)
    evaluations = [folder for label, folder in artifacts.items() if label.startswith("evaluate-")]
    metrics = [read_metrics(path) for folder in evaluations for path in sorted(folder.glob("*.metrics.json"))]
    if not metrics:
        raise UserError(f"no model was evaluated in run {group.group_id} ({group.name}), or not yet")
    return Run(title, metrics)


def _run_elsewhere(title: str, engine: Engine, group_id: str) -> Run:
    """The run of an engine whose artifacts are not on this machine, from its report."""
    for row in engine.status(group_id).tasks:
        if row.label.startswith("report-") and row.state in DONE:
            report = read_json_at(engine, row.task_id, "public/build/report.json")
            return Run(title, _checked(report, f"report.json of {row.task_id}").metrics)
    raise UserError(f"{title} has no report yet")


def _read_report(path: Path) -> Run:
    return _checked(read_json(path), str(path))


def _checked(report: Any, path: str) -> Run:
    try:
        metrics = report["metrics"]
        for entry in metrics:
            if not all(isinstance(entry[key], str) for key in ("name", "dataset", "src", "trg")):
                raise UserError(f"{path}: name, dataset, src and trg of its metrics must be text")
            if not all(isinstance(entry[key]["score"], int | float) for key in ("chrf", "bleu")):
                raise UserError(f"{path}: the scores of its metrics must be numbers")
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is no report.json of a run") from error
    if not metrics:
        raise UserError(f"{path} has no figures: no model was evaluated in that run")
    return Run(path, metrics)


def compare_runs(runs: Sequence[Run]) -> Iterator[Row]:
    """All figures by test set, in the order of the runs, and by model from the teacher on.

    A teacher is compared with a teacher (or the ensemble) whatever it is called, and students likewise. What models
    score on augmented text stands under the plain test set.
    """
    augmented = [_augmented_scores(run) for run in runs]
    grouped = [{(found.dataset, found.src, found.trg): found for found in test_sets(run.metrics)} for run in runs]
    for key in dict.fromkeys(key for sets in grouped for key in sets):
        models = [_models(sets[key]) if key in sets else {} for sets in grouped]
        names = sorted(dict.fromkeys(name for found in models for name in found), key=_by_role)
        for name in names:
            entries = [found.get(name) for found in models]
            for figure, value_of in FIGURES.items():
                values = tuple(None if entry is None else value_of(entry) for entry in entries)
                if any(value is not None for value in values):
                    yield Row(key[0], f"{key[1]}-{key[2]}", name, figure, values)
            on_augmented = [
                scores.get((*key, entry["name"]), {}) if entry else {}
                for scores, entry in zip(augmented, entries, strict=True)
            ]
            for text in dict.fromkeys(text for scores in on_augmented for text in scores):
                figure = Figure(f"chrf-{text}", f"chrF, {text}")
                yield Row(
                    key[0], f"{key[1]}-{key[2]}", name, figure, tuple(scores.get(text) for scores in on_augmented)
                )


def _augmented_scores(run: Run) -> dict[tuple[str, ...], dict[str, float]]:
    """chrF by augmentation, of every plain test set (dataset, source, target) and model."""
    return {
        (group["dataset"], group["src"], group["trg"], model["name"]): {
            text: found["chrf"] for text, found in model["augmented"].items()
        }
        for group in robustness(run.metrics)
        for model in group["models"]
    }


def _models(test_set: TestSet) -> dict[str, Metrics]:
    """Models by what they are to each other: the first of a role by the role's name, others by their own."""
    chosen = (test_set.teacher(), test_set.student(), test_set.finetuned(), test_set.quantized())
    known = {name: entry for name, entry in zip(_MAIN_ROLES, chosen, strict=True) if entry is not None}
    taken = {entry["name"] for entry in known.values()}
    return known | {entry["name"]: entry for entry in test_set.metrics if entry["name"] not in taken}


def _by_role(name: str) -> tuple[int, bool]:
    kind = name if name in _MAIN_ROLES else role({"name": name})
    return _ROLES.index(kind), name not in _MAIN_ROLES


def differing_conditions(runs: Sequence[Run]) -> Iterator[str]:
    """What makes figures of the runs hard to compare: other sentences, other scoring, another processor."""
    conditions: dict[tuple[str, str], dict[str, list[str]]] = {}
    for run in runs:
        for entry in run.metrics:
            where = f"{entry['dataset']} {entry['src']}-{entry['trg']}"
            told = [("the number of sentences", entry.get("sentences"))]
            told += [(f"the signature of {key}", (entry.get(key) or {}).get("signature")) for key in ("chrf", "bleu")]
            told.append(("the processor that speed was measured on", (entry.get("speed") or {}).get("processor")))
            for what, value in told:
                if value is not None:
                    found = conditions.setdefault((where, what), {})
                    if run.name not in found.setdefault(str(value), []):
                        found[str(value)].append(run.name)
    seen = set()
    for (where, what), values in conditions.items():
        if len(values) > 1:
            listed = "; ".join(f"{value} ({', '.join(names)})" for value, names in values.items())
            place = "" if "processor" in what else f" of {where}"
            if (note := f"{what}{place} differs: {listed}") not in seen:
                seen.add(note)
                yield note


def as_json(runs: Sequence[Run], rows: Sequence[Row], notes: Sequence[str]) -> dict[str, Any]:
    """{"runs": [names], "figures": [{"dataset", "direction", "model", "figure", "values", "differences"}], "notes"}"""
    figures = [
        {
            "dataset": row.dataset,
            "direction": row.direction,
            "model": row.model,
            "figure": row.figure.key,
            "values": list(row.values),
            "difference": "ratio" if row.figure.is_ratio else "points",
            "differences": [None if value is None else round(value, 4) for value in row.differences()],
        }
        for row in rows
    ]
    return {"runs": [run.name for run in runs], "figures": figures, "notes": list(notes)}


def as_text(runs: Sequence[Run], rows: Sequence[Row]) -> str:
    """A table for a terminal, one block per test set."""
    table = [("test set", "model", "figure", *(text for run in runs for text in (run.name, "")))]
    before = ("", "")
    for row in rows:
        where = f"{row.dataset} {row.direction}"
        shown = ("" if where == before[0] else where, "" if (where, row.model) == before else row.model)
        table.append((*shown, row.figure.title, *(text for texts in row.texts() for text in texts)))
        before = (where, row.model)
    # The first run has no difference to show.
    table = [(*line[:4], *line[5:]) for line in table]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if column < 3 else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    )


def as_page(runs: Sequence[Run], rows: Sequence[Row], notes: Sequence[str]) -> str:
    """The same as a page that needs nothing else."""
    title = " · ".join(run.name for run in runs)
    sections = []
    for where in dict.fromkeys((row.dataset, row.direction) for row in rows):
        lines = [
            name_cell(row.model)
            + cell(row.figure.title)
            + "".join(cell(value, *texts) for value, texts in zip(row.values, row.texts(), strict=True))
            for row in rows
            if (row.dataset, row.direction) == where
        ]
        heading = " ".join(where)
        table = sortable_table(heading, ["Model", "Figure", *(run.name for run in runs)], lines)
        sections.append(f"<section><h2>{escape(heading)}</h2>{table}</section>")
    remarks = "".join(f"<p class=note>{escape(note)}</p>" for note in notes)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<style>{STYLE}</style></head>\n<body><header class="top"><p class="eyebrow"><b>Limbeck</b> comparison</p>'
        f'<h1>{escape(title)}</h1><p class="note">Small figures compare with the first run.</p>{remarks}</header>\n'
        f"<main>{''.join(sections)}</main>\n<script>{SCRIPT}</script></body></html>"
    )


if __name__ == "__main__":
    sys.exit(main())
