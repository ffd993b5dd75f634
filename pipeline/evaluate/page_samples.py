"""The page's sections with translations to read: chosen blindly, and where the student falls behind most."""

from html import escape
from typing import Any

Report = dict[str, Any]


def samples_section(report: Report, colors: dict[str, int]) -> str:
    """The same sentences as every model translates them."""
    if not report["samples"]:
        return '<p class="none">No translations were handed to this report.</p>'
    note = "Sentences of the first test set, from short to long, chosen without a look at the translations."
    cards = "".join(_card(report, sample, colors) for sample in report["samples"])
    return f'<p class="note">{note}</p>{cards}'


def worst_section(report: Report, colors: dict[str, int]) -> str:
    """The sentences with the largest drop in chrF from teacher to student, side by side."""
    worst = report.get("worst")
    if not worst:
        return '<p class="none">This needs the references, and translations by a teacher and by its student.</p>'
    teacher, student = escape(worst["teacher"]), escape(worst["student"])
    total = worst["better"] + worst["equal"] + worst["worse"]
    note = (
        f"Sentence by sentence on the first test set, {student} is better than {teacher} on {worst['better']:,} of "
        f"{total:,} sentences, worse on {worst['worse']:,}, and within a point of chrF on {worst['equal']:,}."
    )
    if not worst["sentences"]:
        return f'<p class="note">{note}</p>'
    cards = "".join(
        _card(report, sample, colors, f"{sample['drop']:.0f} points of chrF lost") for sample in worst["sentences"]
    )
    return f'<p class="note">{note} Below are those that lost most.</p>{cards}'


def _card(report: Report, sample: dict[str, Any], colors: dict[str, int], title: str = "") -> str:
    src, trg = escape(report["src"]), escape(report["trg"])
    rows = []
    if "source" in sample:
        rows.append(f'<dt>Source</dt><dd class="source" lang="{src}" dir="auto">{escape(sample["source"])}</dd>')
    if "reference" in sample:
        rows.append(f'<dt>Reference</dt><dd lang="{trg}" dir="auto">{escape(sample["reference"])}</dd>')
    for model, text in sample["hypotheses"].items():
        score = sample.get("chrf", {}).get(model)
        shown = f"<small>chrF {score:.0f}</small>" if score is not None else ""
        written = escape(text) if text.strip() else '<span class="none">(empty)</span>'
        rows.append(
            f'<dt class="model c{colors[model]}"><span class="key"></span>{escape(model)}</dt>'
            f'<dd lang="{trg}" dir="auto">{written}{shown}</dd>'
        )
    heading = f"<h4>{escape(title)}</h4>" if title else ""
    return f'<article class="sample">{heading}<dl>{"".join(rows)}</dl></article>'
