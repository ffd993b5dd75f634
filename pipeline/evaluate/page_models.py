"""The page's section on models: a table and a plot of quality, speed and size per test set."""

from html import escape
from typing import Any

from pipeline.evaluate.charts import Bubble, scatter_chart
from pipeline.evaluate.comparison import TestSet, change, test_sets, words_per_second

_COLUMNS = ("Model", "chrF", "BLEU", "Size", "Parameters", "Words/s", "Latency, median", "Latency, p95")


def models_section(metrics: list[dict[str, Any]], colors: dict[str, int]) -> str:
    """A table and a plot for every test set and direction."""
    if not metrics:
        return '<p class="none">No model was evaluated in this run.</p>'
    note = (
        "Higher chrF and BLEU are better. Speed is source words per second, and latency the time of a single sentence, "
        "both on one processor thread. Small figures compare with the teacher. Click a heading to sort."
    )
    parts = [f'<p class="note">{note}</p>']
    for test_set in test_sets(metrics):
        sentences = test_set.metrics[0].get("sentences")
        size = f" · {sentences:,} sentences" if sentences else ""
        direction = f"{escape(test_set.src)} → {escape(test_set.trg)}"
        parts.append(f"<h3>{escape(test_set.dataset)} <small>{direction}{size}</small></h3>")
        parts.append(_table(test_set, colors))
        parts.append(_plot(test_set, colors))
    return "".join(parts)


def _table(test_set: TestSet, colors: dict[str, int]) -> str:
    head = "".join(f'<th scope="col"><button type="button">{title}</button></th>' for title in _COLUMNS)
    rows = "".join(_row(entry, test_set.teacher(), colors) for entry in test_set.metrics)
    caption = escape(f"Models on {test_set.dataset}")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(entry: dict[str, Any], teacher: dict[str, Any] | None, colors: dict[str, int]) -> str:
    compared = None if entry is teacher else change(entry, teacher)
    speed = entry.get("speed") or {}
    latency = speed.get("latency-ms") or {}
    words, size, parameters = words_per_second(entry), entry.get("size-bytes"), entry.get("parameters")
    name = str(entry["name"])
    engine = escape(str(entry.get("engine", "")))
    return (
        f'<tr><th scope="row" data-value="{escape(name)}"><span class="key c{colors[name]}"></span>{escape(name)} '
        f'<small class="note">{engine}</small></th>'
        + _cell(entry["chrf"]["score"], "{:.1f}", _difference(compared.chrf) if compared else "")
        + _cell(entry["bleu"]["score"], "{:.1f}", _difference(compared.bleu) if compared else "")
        + _cell(
            size,
            "",
            _factor(compared.smaller, "smaller") if compared else "",
            None if size is None else human_bytes(size),
        )
        + _cell(parameters, "", "", None if parameters is None else human_count(parameters))
        + _cell(words, "{:,.0f}", _factor(compared.faster, "faster") if compared else "")
        + _cell(latency.get("median"), "{:,.1f} ms")
        + _cell(latency.get("p95"), "{:,.1f} ms")
        + "</tr>"
    )


def _cell(value: float | None, pattern: str, small: str = "", shown: str | None = None) -> str:
    if value is None:
        return '<td data-value=""><span class="none">–</span></td>'
    return f'<td data-value="{value}">{shown or pattern.format(value)}{f"<small>{small}</small>" if small else ""}</td>'


def _difference(points: float) -> str:
    return f"{points:+.1f}".replace("-", "−")


def _factor(ratio: float | None, word: str) -> str:
    if ratio is None or abs(ratio - 1) < 0.005:
        return ""
    return f"{ratio:.0f}× {word}" if ratio >= 9.95 else f"{ratio:.2g}× {word}"


def _plot(test_set: TestSet, colors: dict[str, int]) -> str:
    bubbles = []
    for entry in test_set.metrics:
        words = words_per_second(entry)
        if not words:
            continue
        size = entry.get("size-bytes")
        title = f"{entry['name']}: chrF {entry['chrf']['score']:.1f}, {words:,.0f} words/s"
        title += f", {human_bytes(size)}" if size else ""
        bubbles.append(Bubble(entry["name"], words, entry["chrf"]["score"], size, colors[entry["name"]], title))
    if len(bubbles) < 2:
        return ""  # nothing to compare
    title = f"chrF against words per second on {test_set.dataset}"
    chart = scatter_chart(bubbles, "words per second on one thread (logarithmic)", "chrF", title)
    caption = "Further up is better, further right is faster; the area of a circle is the model's size on disk."
    return f"<figure>{chart}<figcaption>{caption}</figcaption></figure>"


def human_bytes(size: float) -> str:
    """Bytes in decimal units: 43.9 MB."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= limit:
            return f"{size / limit:.1f} {unit}"
    return f"{size:.0f} B"


def human_count(count: float) -> str:
    """A large number in short: 60.5 M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.1f} {unit}"
    return f"{count:.0f}"
