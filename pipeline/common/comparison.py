"""What the metrics of a run say beside each other: which model is the teacher, which the student, what changed."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Metrics = dict[str, Any]

_UNFINETUNED = "-unfinetuned"  # ends the name of a student that was quantized without it
_AUGMENTED = re.compile(r"([^_]+)_aug-([a-z-]+)_(.+)")


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
        """The student in full precision, as it was trained first."""
        return next((entry for entry in self.metrics if role(entry) == "student"), None)

    def finetuned(self) -> Metrics | None:
        """The student in full precision after its training in 8 bits."""
        return next((entry for entry in self.metrics if role(entry) == "finetuned"), None)

    def quantized(self) -> Metrics | None:
        """The student with 8-bit weights."""
        return next((entry for entry in self.metrics if role(entry) == "quantized"), None)

    def final(self) -> Metrics | None:
        """What ships: the furthest of the student's forms that there is."""
        return self.quantized() or self.finetuned() or self.student()

    def steps(self) -> Iterator[tuple[Metrics, Metrics]]:
        """Pairs of old and new: teacher to student, on to the fine-tuned and to every 8-bit one; from end to end last.

        8-bit students come from the fine-tuned student where there is one, and are compared with themselves without
        fine-tuning where that was evaluated.
        """
        teacher, student, finetuned, final = self.teacher(), self.student(), self.finetuned(), self.final()
        pairs = [(teacher, student), (student, finetuned)]
        pairs += [(finetuned or student, entry) for entry in self.metrics if role(entry) == "quantized"]
        for without in (entry for entry in self.metrics if role(entry) == "unfinetuned"):
            name = str(without["name"]).removesuffix(_UNFINETUNED)
            pairs.append((student, without))
            pairs.append((without, next((entry for entry in self.metrics if entry["name"] == name), None)))
        pairs.append((teacher, final if final is not student else None))
        for old, new in pairs:
            if old is not None and new is not None:
                yield old, new

    def pareto(self) -> list[Metrics]:
        """The models that no other beats in speed without losing chrF, from the slowest to the fastest."""
        known = [(speed, entry["chrf"]["score"], entry) for entry in self.metrics if (speed := words_per_second(entry))]
        known.sort(key=lambda point: (point[0], point[1]), reverse=True)
        front: list[Metrics] = []
        best = float("-inf")
        for _, quality, entry in known:
            if quality > best:
                front.insert(0, entry)
                best = quality
        return front


def role(entry: Metrics) -> str:
    """`teacher`, `student`, `finetuned`, `quantized`, `unfinetuned` (and quantized), `backward` or `other`, by a
    model's name and engine."""
    name = str(entry["name"])
    if name.startswith("student"):
        if name.endswith(_UNFINETUNED):
            return "unfinetuned"
        if "browser" in name or "int8" in f"{name} {entry.get('engine', '')}":
            return "quantized"
        return "finetuned" if "finetune" in name else "student"
    return next((known for known in ("teacher", "backward") if name.startswith(known)), "other")


def test_sets(metrics: Sequence[Metrics]) -> list[TestSet]:
    """Metrics grouped by test set and direction, in order of appearance; those of backward models last.

    Test sets with augmented text are left out where their plain set is there: `robustness` has them.
    """
    sets = _all_test_sets(metrics)
    keys = {(test_set.dataset, test_set.src, test_set.trg) for test_set in sets}
    return [
        test_set
        for test_set in sets
        if (augmented := split_augmentation(test_set.dataset)) is None
        or (augmented[0], test_set.src, test_set.trg) not in keys
    ]


def _all_test_sets(metrics: Sequence[Metrics]) -> list[TestSet]:
    groups: dict[tuple[str, str, str], list[Metrics]] = {}
    for entry in metrics:
        groups.setdefault((entry["dataset"], entry["src"], entry["trg"]), []).append(entry)
    sets = [TestSet(*key, metrics=tuple(entries)) for key, entries in groups.items()]
    return sorted(sets, key=lambda test_set: all(role(entry) == "backward" for entry in test_set.metrics))


def split_augmentation(dataset: str) -> tuple[str, str] | None:
    """The plain set and the augmentation of a data set's name: `flores_devtest` and `upper` of
    `flores_aug-upper_devtest`; None for a plain one."""
    found = _AUGMENTED.fullmatch(dataset)
    return (f"{found[1]}_{found[3]}", found[2]) if found else None


def robustness(metrics: Sequence[Metrics]) -> list[dict[str, Any]]:
    """What models lose on augmented text, per plain test set that has augmented ones.

    [{"dataset", "src", "trg", "models": [{"name", "chrf", "augmented": {"upper": {"chrf", "delta"}}}]}]; `delta` is
    the augmented set's chrF less the plain one's.
    """
    augmented: dict[tuple[str, ...], dict[str, dict[str, float]]] = {}
    for entry in metrics:
        if split := split_augmentation(entry["dataset"]):
            key = (split[0], entry["src"], entry["trg"])
            augmented.setdefault(key, {}).setdefault(entry["name"], {})[split[1]] = entry["chrf"]["score"]
    found = []
    for test_set in test_sets(metrics):
        by_model = augmented.get((test_set.dataset, test_set.src, test_set.trg), {})
        models = [
            {
                "name": entry["name"],
                "chrf": entry["chrf"]["score"],
                "augmented": {
                    name: {"chrf": score, "delta": round(score - entry["chrf"]["score"], 4)}
                    for name, score in by_model[entry["name"]].items()
                },
            }
            for entry in test_set.metrics
            if entry["name"] in by_model
        ]
        if models:
            found.append({"dataset": test_set.dataset, "src": test_set.src, "trg": test_set.trg, "models": models})
    return found


def changes(metrics: Sequence[Metrics], significance: Sequence[dict[str, Any]] = ()) -> list[dict[str, Any]]:
    """Every step of every test set from teacher to final student, as figures.

    [{"dataset", "src", "trg", "old", "new", "chrf": {"delta", "low", "high", "p", "significant"}, "bleu": alike,
    "ter": {"delta"}, "faster", "smaller"}]; what stands after the delta is there where `significance` (contents of
    significance.json) has the pair.
    """
    tests: dict[tuple[str, ...], dict[str, Any]] = {
        (test["dataset"], test["src"], test["trg"], pair["old"], pair["new"]): pair
        for test in significance
        for pair in test["pairs"]
    }
    rows = []
    for test_set in test_sets(metrics):
        where = (test_set.dataset, test_set.src, test_set.trg)
        for old, new in test_set.steps():
            compared = change(new, old)
            if compared is None:
                continue
            row: dict[str, Any] = dict(zip(("dataset", "src", "trg"), where, strict=True))
            row |= {"old": compared.old, "new": compared.new}
            for key, delta in (("chrf", compared.chrf), ("bleu", compared.bleu), ("ter", compared.ter)):
                tested = _tested(tests, (*where, compared.old, compared.new), key)
                row[key] = None if delta is None else {"delta": round(delta, 4), **tested}
            rows.append(row | {"faster": compared.faster, "smaller": compared.smaller})
    return rows


def _tested(tests: dict[tuple[str, ...], dict[str, Any]], pair: tuple[str, ...], metric: str) -> dict[str, Any]:
    """Confidence interval, p and verdict of a pair, whichever of the two was named first when it was tested."""
    if found := tests.get(pair, {}).get(metric):
        return {key: found[key] for key in ("low", "high", "p", "significant")}
    if found := tests.get((*pair[:3], pair[4], pair[3]), {}).get(metric):
        return {"low": -found["high"], "high": -found["low"], "p": found["p"], "significant": found["significant"]}
    return {}


@dataclass(frozen=True)
class Change:
    """One model beside the one it was made from. Ratios are None where a figure is missing or zero."""

    new: str
    old: str
    chrf: float  # difference in points: negative is a loss
    bleu: float
    ter: float | None  # negative is a gain
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
        ter=_difference(score(new, "ter"), score(old, "ter")),
        faster=_ratio(words_per_second(new), words_per_second(old)),
        smaller=_ratio(old.get("size-bytes"), new.get("size-bytes")),
    )


def score(entry: Metrics, metric: str) -> float | None:
    """A corpus score of a model, or None when it was not computed."""
    found = (entry.get(metric) or {}).get("score")
    return float(found) if found is not None else None


def words_per_second(entry: Metrics) -> float | None:
    """A model's throughput on one thread, or None when it was not measured."""
    speed = entry.get("speed") or {}
    value = speed.get("words-per-second")
    return float(value) if value is not None else None


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    return numerator / denominator if numerator and denominator else None


def _difference(new: float | None, old: float | None) -> float | None:
    return None if new is None or old is None else new - old
