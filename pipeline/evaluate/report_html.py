"""The report as one HTML page that needs nothing else: no script library, no font, no network.

Every figure on the page is a figure of the report (or the difference or ratio of two); every text is escaped, because
corpora hold anything.
"""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from pipeline.common.comparison import Change, Metrics, TestSet, change, role, test_sets
from pipeline.evaluate.charts import SERIES
from pipeline.evaluate.page_changes import changes_section
from pipeline.evaluate.page_data import data_section
from pipeline.evaluate.page_models import models_section
from pipeline.evaluate.page_samples import samples_section, worst_section
from pipeline.evaluate.page_style import SCRIPT, STYLE
from pipeline.evaluate.page_time import time_section
from pipeline.evaluate.page_training import training_section

Report = dict[str, Any]

# A browser that honours it loads nothing from anywhere, whatever the page should come to hold.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def render_page(report: Report) -> str:
    """The page of a report, whose shape `pipeline.evaluate.report.build_report` describes."""
    colors = model_colors(report)
    sections = [
        ("models", "Quality, speed and size", models_section(report["metrics"], colors)),
        (
            "differences",
            "Differences",
            changes_section(report["changes"], report["robustness"], report["significance"]),
        ),
        ("training", "Training", training_section(report["training"])),
        ("data", "Data", data_section(report["funnel"])),
        ("samples", "Sample translations", samples_section(report, colors)),
        ("worst", "Where the student falls behind", worst_section(report, colors)),
        ("time", "Device time", time_section(report["durations"])),
        ("provenance", "Provenance", provenance_section(report)),
    ]
    links = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title, _ in sections)
    body = "".join(
        f'<section id="{anchor}" aria-labelledby="{anchor}-title">'
        f'<h2 id="{anchor}-title">{title}</h2>{content}</section>'
        for anchor, title, content in sections
    )
    title, languages = escape(report["name"]), f"{escape(report['src'])} → {escape(report['trg'])}"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{title} · {languages} · Limbeck report</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<header class="top"><p class="eyebrow"><b>Limbeck</b> report · {languages}</p><h1>{title}</h1>'
        f'<p class="lede">{escape(summary_sentence(report))}</p>{_figures(report)}'
        f'<nav aria-label="Sections">{links}</nav></header>\n<main>{body}</main>\n'
        f"<footer>Made by Limbeck {escape(str(report.get('limbeck', '')))}. All figures are in the report.json beside "
        f"this page.</footer>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def model_colors(report: Report) -> dict[str, int]:
    """One colour per model name for the whole page: teacher, student and 8-bit student always have the same."""
    names = [entry["name"] for entry in report["metrics"]]
    names += [model for sample in report["samples"] for model in sample["hypotheses"]]
    fixed = {"teacher": 0, "student": 1, "quantized": 2, "finetuned": 3}
    colors: dict[str, int] = {}
    roles = {entry["name"]: role(entry) for entry in report["metrics"]}
    for name in dict.fromkeys(names):
        color = fixed.pop(roles.get(name, role({"name": name})), None)
        others = sum(value >= 3 for value in colors.values())
        colors[name] = color if color is not None else 3 + others % (SERIES - 3)
    return colors


def summary_sentence(report: Report) -> str:
    """What was lost and gained, in one or two sentences."""
    compared = _compared(report)
    if compared is None:
        count = len({entry["name"] for entry in report["metrics"]})
        if not count:
            return "No model was evaluated in this run."
        return (
            f"{count} model{'s were' if count > 1 else ' was'} evaluated; there is no teacher and student to compare."
        )
    test_set, to_student, to_quantized = compared
    sentences = []
    if to_student:
        sentences.append(
            f"On {test_set.dataset}, the student scores {_points(to_student.chrf)} its teacher{_gains(to_student)}"
            f"{_engines(test_set.student(), test_set.teacher(), 'the teacher')}."
        )
    if to_quantized:
        subject = "With 8-bit weights it" if to_student else f"On {test_set.dataset}, the 8-bit student"
        sentences.append(
            f"{subject} scores {_points(to_quantized.chrf)} the student in full precision{_gains(to_quantized)}"
            f"{_engines(test_set.quantized(), test_set.student(), 'that')}."
        )
    return " ".join(sentences)


def _compared(report: Report) -> tuple[TestSet, Change | None, Change | None] | None:
    """The first test set with something to compare: student beside teacher, 8-bit student beside student."""
    for test_set in test_sets(report["metrics"]):
        to_student = change(test_set.student(), test_set.teacher())
        to_quantized = change(test_set.quantized(), test_set.student())
        if to_student or to_quantized:
            return test_set, to_student, to_quantized
    return None


def _figures(report: Report) -> str:
    """The figures that matter most, of the model that ships beside the teacher it came from."""
    for test_set in test_sets(report["metrics"]):
        end = change(test_set.final(), test_set.teacher())
        if end is None:
            continue
        figures = [
            (f"{end.chrf:+.1f}".replace("-", "−"), "chrF points"),
            (f"{end.bleu:+.1f}".replace("-", "−"), "BLEU points"),
        ]
        if end.faster:
            figures.append((f"{_times(end.faster)}×", "the words per second, on one thread"))
        if end.smaller:
            figures.append((f"{_times(end.smaller)}×", "smaller on disk"))
        cells = "".join(f'<p class="figure"><b>{value}</b><span>{label}</span></p>' for value, label in figures)
        who = escape(f"{end.new} beside {end.old} on {test_set.dataset}")
        return f'<div class="figures" role="group" aria-label="{who}">{cells}</div><p class="note">{who}</p>'
    return ""


def _points(difference: float) -> str:
    if abs(difference) < 0.05:
        return "the same chrF as"
    return f"{abs(difference):.1f} chrF points {'above' if difference > 0 else 'below'}"


def _gains(compared: Change) -> str:
    parts = []
    if compared.faster:
        faster = compared.faster >= 1
        factor = _times(compared.faster if faster else 1 / compared.faster)
        parts.append(f"translates {factor} times {'faster' if faster else 'slower'}")
    if compared.smaller:
        smaller = compared.smaller >= 1
        factor = _times(compared.smaller if smaller else 1 / compared.smaller)
        parts.append(f"is {factor} times {'smaller' if smaller else 'larger'}")
    if not parts:
        return ""
    return f", {parts[0]}" + (f" and {parts[1]}" if len(parts) > 1 else "")


def _engines(new: Metrics | None, old: Metrics | None, called: str) -> str:
    """A remark where the two ran in different engines, so that speed is not the models' alone; `called` is the old."""
    engines = [str((entry or {}).get("engine", "")) for entry in (new, old)]
    if engines[0].split(" ")[0] == engines[1].split(" ")[0]:
        return ""
    return f" (it runs in {engines[0]}, {called} in {engines[1]})"


def _times(factor: float) -> str:
    return f"{factor:,.0f}" if factor >= 10 else f"{factor:.1f}"


def provenance_section(report: Report) -> str:
    """How the figures came about: decoding, scoring, software, machines."""
    metrics: Sequence[dict[str, Any]] = report["metrics"]
    facts: list[tuple[str, str]] = [("Experiment", report["name"]), ("Languages", f"{report['src']} → {report['trg']}")]
    for entry in metrics:
        decoding = ", ".join(f"{key} {value}" for key, value in entry.get("decoding", {}).items() if value is not False)
        facts.append((f"{entry['name']} on {entry['dataset']}", f"{entry.get('engine', 'unknown engine')}; {decoding}"))
    for metric, label in (("chrf", "chrF"), ("bleu", "BLEU"), ("ter", "TER"), ("comet", "COMET")):
        scored = [entry[metric] for entry in metrics if entry.get(metric)]
        signatures = dict.fromkeys(str(score.get("signature", "unknown")) for score in scored)
        facts.extend((f"{label} signature", signature) for signature in signatures)
    processors = dict.fromkeys(str((entry.get("speed") or {}).get("processor", "unknown")) for entry in metrics)
    facts.extend(("Speed measured on", processor) for processor in processors)
    versions = {f"{package} {version}" for entry in metrics for package, version in entry.get("versions", {}).items()}
    if versions:
        facts.append(("Software", ", ".join(sorted(versions))))
    facts.extend(_measured(metrics))
    rows = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in facts)
    return f'<dl class="facts">{rows}</dl>'


def _measured(metrics: Sequence[Metrics]) -> Iterator[tuple[str, str]]:
    """How each figure came about; with the names of the models where not all have it in the same way."""
    names: dict[str, dict[str, dict[str, None]]] = {}  # by figure and by how it was measured, in order
    for entry in metrics:
        for key, how in entry.get("measured", {}).items():
            names.setdefault(key, {}).setdefault(how, {})[str(entry["name"])] = None
    for key, ways in names.items():
        for how, models in ways.items():
            yield f"How {key} is measured", f"{', '.join(models)}: {how}" if len(ways) > 1 else how
