"""What became of the data: the statistics of the data steps, brought into one shape for the page."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Passage:
    """Lines that went into a step and what became of them; `lost` by reason, the largest first."""

    label: str
    read: int
    kept: int
    lost: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Stage:
    """One data step: what kind of step, its passages, and whatever else its statistics say."""

    kind: str  # one of KINDS
    title: str
    passages: tuple[Passage, ...]
    facts: tuple[tuple[str, str], ...]


KINDS = ("Import", "Cleaning", "Merging", "Other steps")
_NAMING = {"dataset", "src", "trg", "lang"}


def stage(name: str, stats: Any) -> Stage:
    """A step's statistics as passages where their shape is known (cleaning, merging, filtering), as facts otherwise.

    `name` is the file's, without its endings; statistics of any JSON shape are accepted.
    """
    if not isinstance(stats, Mapping):
        return Stage("Other steps", name, (), (("value", _fact(stats)),))
    if isinstance(stats.get("corpora"), Mapping) and all(map(_is_counts, stats["corpora"].values())):
        passages = tuple(_merged(str(corpus), counts) for corpus, counts in stats["corpora"].items())
        return Stage("Merging", name, passages, _facts(stats, {"corpora"}))
    title = f"{stats.get('dataset', name)}{_languages(stats)}"
    removed = stats.get("removed")
    kind = "Cleaning" if isinstance(removed, Mapping) else "Import" if "dataset" in stats else "Other steps"
    if not (_is_count(stats.get("read")) and _is_count(stats.get("kept"))):
        return Stage(kind, title, (), _facts(stats, _NAMING))
    removed = stats.get("dropped") if removed is None else removed
    if not isinstance(removed, Mapping) or not _is_counts(removed):
        removed = {"removed": max(0, stats["read"] - stats["kept"])}
    passage = Passage("", stats["read"], stats["kept"], _sorted(removed))
    return Stage(kind, title, (passage,), _facts(stats, {"read", "kept", "removed", "dropped", *_NAMING}))


def _merged(corpus: str, counts: Mapping[str, Any]) -> Passage:
    kept = counts.get("kept", 0)
    lost = {key: value for key, value in counts.items() if key not in ("read", "kept")}
    return Passage(corpus, counts.get("read", kept + sum(lost.values())), kept, _sorted(lost))


def _languages(stats: Mapping[str, Any]) -> str:
    if "src" in stats and "trg" in stats:
        return f" ({stats['src']}–{stats['trg']})"
    return f" ({stats['lang']})" if "lang" in stats else ""


def _sorted(counts: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(((str(key), value) for key, value in counts.items() if value), key=lambda item: -item[1]))


def _facts(stats: Mapping[str, Any], used: set[str]) -> tuple[tuple[str, str], ...]:
    return tuple((str(key), _fact(value)) for key, value in stats.items() if key not in used and value not in ({}, []))


def _fact(value: Any) -> str:
    """A JSON value in one line, for people."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_fact(entry)}" for key, entry in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(_fact(entry) for entry in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4g}" if isinstance(value, float) else "none" if value is None else str(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_counts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_count, value.values()))
