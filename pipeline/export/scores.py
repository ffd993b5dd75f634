"""The figures of an evaluation as a model card has them: Markdown tables of scores, differences and robustness."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.common.comparison import Metrics, changes, robustness, score, test_sets, words_per_second
from pipeline.common.figures import read_metrics, read_significance
from pipeline.export.markdown import escaped, megabytes, signed, table

NOT_EVALUATED = "This model was exported without an evaluation."
_SIGNED = ("chrf", "bleu", "ter", "comet")  # scores whose signature says how they were computed


@dataclass(frozen=True)
class Figures:
    """What was measured: contents of metrics.json, one for each model and test set, and of significance.json."""

    metrics: Sequence[Metrics] = ()
    significance: Sequence[dict[str, Any]] = ()

    @classmethod
    def read(cls, metrics: Sequence[Path], significance: Sequence[Path]) -> "Figures":
        """Raises UserError on files that are no such figures."""
        return cls([read_metrics(path) for path in metrics], [read_significance(path) for path in significance])

    def to_json(self) -> dict[str, Any]:
        """The figures for metadata.json, "changes" and "robustness" as pipeline.common.comparison gives them."""
        return {
            "metrics": list(self.metrics),
            "significance": list(self.significance),
            "changes": changes(self.metrics, self.significance),
            "robustness": robustness(self.metrics),
        }

    def of(self, languages: tuple[str, str]) -> "Figures":
        """The figures of one direction: a backward model says nothing of what is exported."""
        return Figures(
            [entry for entry in self.metrics if (entry["src"], entry["trg"]) == languages],
            [entry for entry in self.significance if (entry["src"], entry["trg"]) == languages],
        )


def scores_sections(figures: Figures) -> str:
    """All tables that the figures fill, under headings, from "## Scores" on."""
    parts = ["## Scores", _scores(figures.metrics)]
    if rows := changes(figures.metrics, figures.significance):
        parts += ["### Differences", _changes(rows, figures.significance)]
    if found := robustness(figures.metrics):
        parts += ["### Robustness", _robustness(found)]
    return "\n\n".join(parts)


# Scores


def _in(section: str, *keys: str) -> Callable[[Metrics], float | None]:
    """The first figure that there is in a section of the metrics, such as "memory"."""

    def value(entry: Metrics) -> float | None:
        found = entry.get(section) or {}
        return next((found[key] for key in keys if found.get(key) is not None), None)

    return value


def _latency(*keys: str) -> Callable[[Metrics], float | None]:
    return lambda entry: _in("latency-ms", *keys)(entry.get("speed") or {})


_POINT, _WHOLE, _MILLISECONDS = "{:.1f}".format, "{:,.0f}".format, "{:,.1f} ms".format
_COLUMNS: tuple[tuple[str, Callable[[Metrics], float | None], Callable[[float], str]], ...] = (
    ("chrF", lambda entry: score(entry, "chrf"), _POINT),
    ("BLEU", lambda entry: score(entry, "bleu"), _POINT),
    ("TER", lambda entry: score(entry, "ter"), _POINT),
    ("COMET", lambda entry: score(entry, "comet"), "{:.4f}".format),
    ("Words/s", words_per_second, _WHOLE),
    ("Words/s, single", _in("speed", "words-per-second-single"), _WHOLE),
    ("Latency p50", _latency("p50", "median"), _MILLISECONDS),
    ("p90", _latency("p90"), _MILLISECONDS),
    ("p99", _latency("p99"), _MILLISECONDS),
    ("Peak memory", _in("memory", "peak-rss-bytes"), megabytes),
    ("Size", lambda entry: entry.get("size-bytes"), megabytes),
)


def _scores(metrics: Sequence[Metrics]) -> str:
    """One row for each model and test set; what was measured for none of them has no column."""
    entries = [entry for test_set in test_sets(metrics) for entry in test_set.metrics]
    if not entries:
        return NOT_EVALUATED
    columns = [column for column in _COLUMNS if any(column[1](entry) is not None for entry in entries)]
    rows = []
    for entry in entries:
        values = [(value(entry), shown) for _, value, shown in columns]
        figures = ["–" if value is None else shown(value) for value, shown in values]
        rows.append([entry["dataset"], entry["name"], entry.get("engine", "–"), *figures])
    titles = ["Test set", "Model", "Engine", *(title for title, _, _ in columns)]
    return "\n\n".join([table(titles, rows, texts=3), _explained(entries)])


def _explained(entries: Sequence[Metrics]) -> str:
    lines = ["Of TER lower is better, of the other scores higher."]
    processors = _distinct((entry.get("speed") or {}).get("processor") for entry in entries)
    if any(words_per_second(entry) is not None for entry in entries):
        machine = f" of {' or '.join(processors)}" if processors else ""
        lines[0] += (
            " Speed is source words per second on one thread"
            f"{machine}, in batches and sentence by sentence; latency is the time of one sentence; memory is that of "
            "the process that translates."
        )
    for key in _SIGNED:
        signatures = _distinct((entry.get(key) or {}).get("signature") for entry in entries)
        if signatures:
            lines.append(f"- {key}: {', '.join(f'`{signature}`' for signature in signatures)}")
    return "\n".join([lines[0], "", *lines[1:]]).rstrip()


def _distinct(values: Any) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values if value))


# Differences


def _changes(rows: Sequence[dict[str, Any]], significance: Sequence[dict[str, Any]]) -> str:
    titles = ["Test set", "From", "To", "chrF", "BLEU", "TER", "Faster", "Smaller"]
    body = [
        [
            row["dataset"],
            row["old"],
            row["new"],
            *(_difference(row[metric]) for metric in ("chrf", "bleu", "ter")),
            *(_times(row[key]) for key in ("faster", "smaller")),
        ]
        for row in rows
    ]
    if not significance:
        note = "Differences in points; their significance was not tested."
    else:
        samples = " or ".join(sorted({f"{test['samples']:,}" for test in significance}))
        note = (
            "Differences in points, in brackets their 95 % confidence intervals by paired bootstrap resampling "
            f"({samples} samples) and p as sacreBLEU computes it. Where zero lies within, a difference may be the luck "
            "of these sentences: “n. s.”, not significant."
        )
    return f"{table(titles, body, texts=3)}\n\n{note}"


def _difference(found: dict[str, Any] | None) -> str:
    if found is None:
        return "–"
    shown = signed(found["delta"], 2)
    if "p" not in found:
        return shown
    verdict = "" if found["significant"] else ", n. s."
    return f"{shown} ({signed(found['low'], 2)} … {signed(found['high'], 2)}, p = {found['p']:.3f}{verdict})"


def _times(ratio: float | None) -> str:
    if ratio is None:
        return "–"
    return f"{ratio:.0f}×" if ratio >= 9.95 else f"{ratio:.2g}×"


# Robustness


def _robustness(found: Sequence[dict[str, Any]]) -> str:
    parts = []
    for entry in found:
        names = list(dict.fromkeys(name for model in entry["models"] for name in model["augmented"]))
        rows = [
            [
                model["name"],
                f"{model['chrf']:.1f}",
                *(_augmented(model["augmented"].get(name)) for name in names),
            ]
            for model in entry["models"]
        ]
        parts.append(
            f"chrF on {escaped(entry['dataset'])} and on the same sentences with changed sources, in brackets the "
            f"difference:\n\n{table(['Model', 'plain', *names], rows, texts=1)}"
        )
    return "\n\n".join(parts)


def _augmented(found: dict[str, float] | None) -> str:
    return "–" if found is None else f"{found['chrf']:.1f} ({signed(found['delta'], 1)})"
