"""The page's section on training: per model, the validation scores and the costs over the updates."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from pipeline.common.progress import format_duration
from pipeline.evaluate.charts import Line, line_chart

Records = Sequence[dict[str, Any]]

_LABELS = {
    "chrf": "chrF",
    "bleu-detok": "BLEU",
    "bleu": "BLEU",
    "train-cost": "training cost",
    "ce-mean-words": "validation cost per word",
    "cross-entropy": "validation cross-entropy",
}
_SCORES = ("chrf", "bleu", "ter", "comet")
_COSTS = ("train-cost", "ce", "cross-entropy", "cost", "loss")


def training_section(training: dict[str, Records]) -> str:
    """Two charts per trained model."""
    if not training:
        return '<p class="none">No model was trained in this run: all were reused or given.</p>'
    note = '<p class="note">Validations during training; circles mark the model that was kept.</p>'
    return note + "".join(
        f"<h3>{escape(name)} <small>{escape(_caption(records))}</small></h3>{_charts(name, records)}"
        for name, records in training.items()
    )


def _charts(name: str, records: Records) -> str:
    keys = list(dict.fromkeys(key for record in records for key in record))
    best = best_update(records)
    figures = []
    for prefixes, label in ((_SCORES, "validation score"), (_COSTS, "cost"), (("perplexity",), "perplexity")):
        chosen = [key for key in keys if key.split("-")[0] in prefixes or key in prefixes]
        lines = [line for index, key in enumerate(chosen) if (line := _line(records, key, index, best))]
        if lines:
            chart = line_chart(lines, "updates", label, f"{name}: {label} over updates")
            figures.append(f"<figure>{chart}</figure>")
    if not figures:
        return '<p class="none">No validation was recorded.</p>'
    return f'<div class="charts">{"".join(figures)}</div>'


def _line(records: Records, key: str, index: int, best: float | None) -> Line | None:
    points = sorted(
        (record["update"], record[key])
        for record in records
        if is_number(record.get("update")) and is_number(record.get(key))
    )
    if not points:
        return None
    marked = None if key == "train-cost" else next((point for point in points if point[0] == best), None)
    color = (1, 0, 2, 3, 4, 5)[index % 6]
    return Line(_LABELS.get(key, key), points, color, marked)


def best_update(records: Records) -> float | None:
    """The update of the best validation: the last that was the best when it was made."""
    best = (record.get("update") for record in reversed(records) if record.get("best") is True)
    return next((update for update in best if is_number(update)), None)


def _caption(records: Records) -> str:
    parts = [f"{len(records):,} validation{'' if len(records) == 1 else 's'}"]
    last = records[-1] if records else {}
    if is_number(last.get("update")):
        parts.append(f"{last['update']:,} updates")
    if is_number(last.get("epoch")):
        parts.append(f"epoch {last['epoch']:.4g}")
    if is_number(last.get("seconds")):
        parts.append(format_duration(last["seconds"]))
    if is_number(last.get("words-per-second")):
        parts.append(f"{last['words-per-second']:,.0f} words/s at the end")
    best = best_update(records)
    if best is not None:
        parts.append(f"best at update {best:,}")
    return " · ".join(parts)


def is_number(value: Any) -> bool:
    """Whether a value can be drawn: a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
