"""The page's section on differences: from teacher to student to 8 bits, and from plain to augmented text."""

from html import escape
from typing import Any

from pipeline.evaluate.page_table import cell, name_cell, signed, sortable_table


def changes_section(
    changes: list[dict[str, Any]], robustness: list[dict[str, Any]], significance: list[dict[str, Any]]
) -> str:
    """A table of all steps on all test sets, and one per test set that has augmented ones."""
    if not changes and not robustness:
        return '<p class="none">There are no models to compare in this run.</p>'
    parts = []
    if changes:
        parts += [f'<p class="note">{_note(significance)}</p>', _changes_table(changes)]
    for entry in robustness:
        direction = f"{escape(entry['src'])} → {escape(entry['trg'])}"
        parts.append(f"<h3>Robustness on {escape(entry['dataset'])} <small>{direction} · chrF</small></h3>")
        parts.append(_robustness_table(entry))
    if robustness:
        note = "Small figures are the difference from the plain test set: what a model loses when its input is so."
        parts.append(f'<p class="note">{note}</p>')
    return "".join(parts)


def _note(significance: list[dict[str, Any]]) -> str:
    if not significance:
        return "Differences in points. Their significance was not tested in this run."
    samples = sorted({test["samples"] for test in significance})
    counts = " or ".join(f"{count:,}" for count in samples)
    return (
        f"Differences in points, with 95 % confidence intervals of paired bootstrap resampling ({counts} samples). "
        "Where zero lies within, a difference may be the luck of these sentences; it is marked “n. s.”. "
        "p is computed as sacreBLEU does."
    )


def _changes_table(changes: list[dict[str, Any]]) -> str:
    """What was not tested, or scored, for any pair has no column."""
    is_tested = any("p" in row["chrf"] for row in changes)
    has_ter = any(row["ter"] for row in changes)
    titles = ["Test set", "From", "To"]
    for metric in ("chrF", "BLEU"):
        titles += [metric, "p"] if is_tested else [metric]
    titles += ["TER", "Faster", "Smaller"] if has_ter else ["Faster", "Smaller"]
    rows = []
    for row in changes:
        cells = [name_cell(row["dataset"], note=f"{row['src']} → {row['trg']}"), cell(row["old"]), cell(row["new"])]
        for metric in ("chrf", "bleu"):
            cells.append(_delta(row[metric]))
            cells += [_p(row[metric])] if is_tested else []
        cells += [_delta(row["ter"])] if has_ter else []
        rows.append("".join([*cells, _ratio(row["faster"]), _ratio(row["smaller"])]))
    return sortable_table("Differences between models", titles, rows)


def _delta(difference: dict[str, Any] | None) -> str:
    if difference is None:
        return cell(None)
    limits = ""
    if "low" in difference:
        limits = f"{signed(difference['low'], 2)} … {signed(difference['high'], 2)}"
    return cell(difference["delta"], signed(difference["delta"], 2), limits)


def _p(difference: dict[str, Any]) -> str:
    p = difference.get("p")
    if p is None:
        return cell(None)
    return cell(p, f"{p:.3f}", "" if difference["significant"] else "n. s.")


def _ratio(ratio: float | None) -> str:
    if ratio is None:
        return cell(None)
    return cell(round(ratio, 4), f"{ratio:.0f}×" if ratio >= 9.95 else f"{ratio:.2g}×")


def _robustness_table(entry: dict[str, Any]) -> str:
    augmentations = list(dict.fromkeys(name for model in entry["models"] for name in model["augmented"]))
    rows = []
    for model in entry["models"]:
        cells = [name_cell(model["name"]), cell(model["chrf"], f"{model['chrf']:.1f}")]
        for augmentation in augmentations:
            found = model["augmented"].get(augmentation)
            cells.append(cell(found["chrf"], f"{found['chrf']:.1f}", signed(found["delta"])) if found else cell(None))
        rows.append("".join(cells))
    return sortable_table(f"Robustness on {entry['dataset']}", ["Model", "plain", *augmentations], rows)
