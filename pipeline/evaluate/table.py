"""The table of a run's models for a terminal: quality, size and speed side by side."""

from collections.abc import Sequence
from typing import Any

from pipeline.common.comparison import words_per_second

_HEADERS = ("model", "test set", "chrF", "BLEU", "size MB", "words/s")
_TEXT_COLUMNS = 2


def summary_table(metrics: Sequence[dict[str, Any]]) -> str:
    """The models' scores, sizes (1 MB = 1,000,000 bytes) and speeds on one thread, one line per model and test set.

    `metrics` are the contents of metrics.json files, such as the list under "metrics" of a report.json.
    """
    rows = [_HEADERS, *(_row(entry) for entry in metrics)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADERS))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < _TEXT_COLUMNS else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    size, speed = entry.get("size-bytes"), words_per_second(entry)
    return (
        str(entry["name"]),
        f"{entry['dataset']} {entry['src']}-{entry['trg']}",
        f"{entry['chrf']['score']:.1f}",
        f"{entry['bleu']['score']:.1f}",
        "-" if size is None else f"{size / 1e6:,.1f}",
        "-" if speed is None else f"{speed:,.0f}",
    )
