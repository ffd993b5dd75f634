"""The page's section on models: a table and a plot of quality, speed and size per test set."""

from collections.abc import Callable, Sequence
from html import escape
from typing import Any, NamedTuple

from pipeline.common.comparison import Change, Metrics, TestSet, change, score, test_sets, words_per_second
from pipeline.evaluate.charts import Bubble, scatter_chart
from pipeline.evaluate.page_table import cell, factor, human_bytes, human_count, name_cell, signed, sortable_table


class _Column(NamedTuple):
    """A figure of the table: where it is, how it is shown, and how it compares with the teacher's."""

    title: str
    value: Callable[[Metrics], float | None]
    shown: Callable[[float], str]
    compared: Callable[[Change], str] = lambda _: ""


def _speed(key: str) -> Callable[[Metrics], float | None]:
    return lambda entry: (entry.get("speed") or {}).get(key)


def _latency(*keys: str) -> Callable[[Metrics], float | None]:
    """The first of the percentiles that there is."""

    def value(entry: Metrics) -> float | None:
        latency = (entry.get("speed") or {}).get("latency-ms") or {}
        return next((latency[key] for key in keys if key in latency), None)

    return value


def _memory(key: str) -> Callable[[Metrics], float | None]:
    return lambda entry: (entry.get("memory") or {}).get(key)


_POINT, _WHOLE, _MILLISECONDS = "{:.1f}".format, "{:,.0f}".format, "{:,.1f} ms".format
_COLUMNS = (
    _Column("chrF", lambda entry: score(entry, "chrf"), _POINT, lambda compared: signed(compared.chrf)),
    _Column("BLEU", lambda entry: score(entry, "bleu"), _POINT, lambda compared: signed(compared.bleu)),
    _Column(
        "TER",
        lambda entry: score(entry, "ter"),
        _POINT,
        lambda compared: "" if compared.ter is None else signed(compared.ter),
    ),
    _Column("COMET", lambda entry: score(entry, "comet"), "{:.4f}".format),
    _Column(
        "Size", lambda entry: entry.get("size-bytes"), human_bytes, lambda compared: factor(compared.smaller, "smaller")
    ),
    _Column("Parameters", lambda entry: entry.get("parameters"), human_count),
    _Column("Words/s", words_per_second, _WHOLE, lambda compared: factor(compared.faster, "faster")),
)
_SPEED_COLUMNS = (
    _Column("Words/s, batches", words_per_second, _WHOLE),
    _Column("Words/s, single", _speed("words-per-second-single"), _WHOLE),
    _Column("Latency, p50", _latency("p50", "median"), _MILLISECONDS),
    _Column("p90", _latency("p90"), _MILLISECONDS),
    _Column("p99", _latency("p99"), _MILLISECONDS),
    _Column("Peak memory", _memory("peak-rss-bytes"), human_bytes),
    _Column("the model’s", _memory("model-bytes"), human_bytes),
)


def models_section(metrics: list[dict[str, Any]], colors: dict[str, int]) -> str:
    """A table and a plot for every test set and direction."""
    if not metrics:
        return '<p class="none">No model was evaluated in this run.</p>'
    note = (
        "Higher chrF and BLEU are better, lower TER is. Speed is source words per second in batches and sentence by "
        "sentence, latency the time of a single sentence, memory that of the decoding process, all on one processor "
        "thread. Small figures compare with the teacher. Click a heading to sort."
    )
    parts = [f'<p class="note">{note}</p>']
    for test_set in test_sets(metrics):
        sentences = test_set.metrics[0].get("sentences")
        size = f" · {sentences:,} sentences" if sentences else ""
        direction = f"{escape(test_set.src)} → {escape(test_set.trg)}"
        parts.append(f"<h3>{escape(test_set.dataset)} <small>{direction}{size}</small></h3>")
        parts.append(_table(test_set, _COLUMNS, colors, "Quality, size and speed"))
        parts.append(_plot(test_set, colors))
        parts.append(_table(test_set, _SPEED_COLUMNS, colors, "Latency and memory"))
    return "".join(parts)


def _table(test_set: TestSet, columns: Sequence[_Column], colors: dict[str, int], caption: str) -> str:
    """What no model was measured for has no column."""
    known = [column for column in columns if any(column.value(entry) is not None for entry in test_set.metrics)]
    if not known:
        return ""
    rows = [_row(entry, test_set.teacher(), known, colors) for entry in test_set.metrics]
    return sortable_table(f"{caption} on {test_set.dataset}", ["Model", *(column.title for column in known)], rows)


def _row(entry: Metrics, teacher: Metrics | None, columns: list[_Column], colors: dict[str, int]) -> str:
    compared = None if entry is teacher else change(entry, teacher)
    cells = [name_cell(str(entry["name"]), colors[entry["name"]], str(entry.get("engine", "")))]
    for column in columns:
        value = column.value(entry)
        shown = "" if value is None else column.shown(value)
        cells.append(cell(value, shown, column.compared(compared) if compared else ""))
    return "".join(cells)


def _plot(test_set: TestSet, colors: dict[str, int]) -> str:
    bubbles = []
    front = {entry["name"] for entry in test_set.pareto()}
    for entry in test_set.metrics:
        words = words_per_second(entry)
        if not words:
            continue
        size = entry.get("size-bytes")
        name = str(entry["name"])
        title = f"{name}: chrF {entry['chrf']['score']:.1f}, {words:,.0f} words/s"
        title += f", {human_bytes(size)}" if size else ""
        bubbles.append(Bubble(name, words, entry["chrf"]["score"], size, colors[name], title, on_front=name in front))
    if len(bubbles) < 2:
        return ""  # nothing to compare
    title = f"chrF against words per second on {test_set.dataset}"
    chart = scatter_chart(bubbles, "words per second on one thread (logarithmic)", "chrF", title)
    caption = (
        "Further up is better, further right is faster; the area of a circle is the model's size on disk. The dashed "
        "line is the Pareto front: no other model is faster than one on it without losing chrF."
    )
    return f"<figure>{chart}<figcaption>{caption}</figcaption></figure>"
