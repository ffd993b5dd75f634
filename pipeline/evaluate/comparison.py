"""What the metrics of a run say beside each other: which model is the teacher, which the student, what changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Metrics = dict[str, Any]


@dataclass(frozen=True)
class TestSet:
    """The metrics of all models that translated one test set in one direction, in the order they were given."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    dataset: str
    src: str
    trg: str
    metrics: tuple[Metrics, ...]

    def teacher(self) -> Metrics | None:
        """The teacher, or the ensemble of teachers where there is one: what the student learned from."""
        teachers = [entry for entry in self.metrics if str(entry["name"]).startswith("teacher")]
        return next((entry for entry in teachers if "ensemble" in entry["name"]), teachers[0] if teachers else None)

    def student(self) -> Metrics | None:
        """The student in full precision."""
        return next((entry for entry in self.metrics if role(entry) == "student"), None)

    def quantized(self) -> Metrics | None:
        """The student with 8-bit weights."""
        return next((entry for entry in self.metrics if role(entry) == "quantized"), None)


def role(entry: Metrics) -> str:
    """`teacher`, `student`, `quantized`, `backward` or `other`, by a model's name and engine."""
    name = str(entry["name"])
    if name.startswith("student"):
        return "quantized" if "int8" in f"{name} {entry.get('engine', '')}" else "student"
    return next((known for known in ("teacher", "backward") if name.startswith(known)), "other")


def test_sets(metrics: Sequence[Metrics]) -> list[TestSet]:
    """Metrics grouped by test set and direction, in order of appearance; those of backward models last."""
    groups: dict[tuple[str, str, str], list[Metrics]] = {}
    for entry in metrics:
        groups.setdefault((entry["dataset"], entry["src"], entry["trg"]), []).append(entry)
    sets = [TestSet(*key, metrics=tuple(entries)) for key, entries in groups.items()]
    return sorted(sets, key=lambda test_set: all(role(entry) == "backward" for entry in test_set.metrics))


@dataclass(frozen=True)
class Change:
    """One model beside the one it was made from. Ratios are None where a figure is missing or zero."""

    new: str
    old: str
    chrf: float  # difference in points: negative is a loss
    bleu: float
    faster: float | None
    smaller: float | None


def change(new: Metrics | None, old: Metrics | None) -> Change | None:
    """What changed from an old model to a new one on the same test set; None when either is missing."""
    if new is None or old is None:
        return None
    return Change(
        new=new["name"],
        old=old["name"],
        chrf=new["chrf"]["score"] - old["chrf"]["score"],
        bleu=new["bleu"]["score"] - old["bleu"]["score"],
        faster=_ratio(words_per_second(new), words_per_second(old)),
        smaller=_ratio(old.get("size-bytes"), new.get("size-bytes")),
    )


def words_per_second(entry: Metrics) -> float | None:
    """A model's throughput on one thread, or None when it was not measured."""
    speed = entry.get("speed") or {}
    value = speed.get("words-per-second")
    return float(value) if value is not None else None


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    return numerator / denominator if numerator and denominator else None
