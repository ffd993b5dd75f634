"""Translations for a person to read: the same sentences of every model, chosen blindly, and where the student fails."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sacrebleu.metrics.chrf import CHRF

from pipeline.common.comparison import TestSet
from pipeline.common.corpus import read_columns
from pipeline.common.errors import UserError

SAMPLES = 10
_NOTICEABLE = 1.0  # chrF points between two translations of a sentence


@dataclass(frozen=True)
class Translations:
    """A test set as several models translated it; all columns have one entry per sentence."""

    sources: Sequence[str] | None
    references: Sequence[str] | None
    hypotheses: Mapping[str, Sequence[str]]  # by model

    def __len__(self) -> int:
        return len(next(iter(self.hypotheses.values()), ()))

    def texts(self, index: int) -> dict[str, Any]:
        """One sentence: {"source", "reference", "hypotheses": {model: text}, "chrf": {model: score}}, what there is."""
        shown: dict[str, Any] = {}
        if self.sources is not None:
            shown["source"] = self.sources[index]
        if self.references is not None:
            shown["reference"] = self.references[index]
        shown["hypotheses"] = {model: lines[index] for model, lines in self.hypotheses.items()}
        if self.references is not None:
            shown["chrf"] = {
                model: round(_sentence_chrf(text, self.references[index]), 1)
                for model, text in shown["hypotheses"].items()
            }
        return shown


def read_translations(
    sources: Path | None, references: Path | None, hypotheses: Sequence[tuple[str, Path]]
) -> Translations:
    """Raises UserError when the files differ in length or hold no line."""
    if not hypotheses:
        return Translations(None, None, {})
    paths = [path for path in (sources, references) if path]
    rows = list(read_columns(*paths, *(path for _, path in hypotheses)))
    if not rows:
        raise UserError(f"{hypotheses[0][1]} has no lines to show as samples")
    columns = list(zip(*rows, strict=True))
    given = iter(columns)
    return Translations(
        next(given) if sources else None,
        next(given) if references else None,
        {name: next(given) for name, _ in hypotheses},
    )


def sample_translations(translations: Translations, count: int = SAMPLES) -> list[dict[str, Any]]:
    """About `count` sentences with every model's translation and its sentence chrF.

    The choice depends on the test set alone: sentences sorted by length are cut into `count` equal parts, and each part
    gives the sentence with the smallest digest.
    """
    if not len(translations):
        return []
    first = translations.sources or translations.references or next(iter(translations.hypotheses.values()))
    return [translations.texts(index) for index in choose_varied(first, count)]


def choose_varied(lines: Sequence[str], count: int) -> list[int]:
    """Indices of about `count` different lines, from the shortest to the longest."""
    first_index: dict[str, int] = {}
    for index, line in enumerate(lines):
        if line.strip():
            first_index.setdefault(line, index)
    texts = sorted(first_index, key=lambda text: (len(text), text))
    count = min(count, len(texts))
    parts = [texts[part * len(texts) // count : (part + 1) * len(texts) // count] for part in range(count)]
    return [first_index[min(part, key=_digest)] for part in parts]


def worst_translations(translations: Translations, count: int = SAMPLES) -> dict[str, Any] | None:
    """The sentences on which the final student's chrF lies furthest below its teacher's, the furthest first.

    {"teacher", "student", "better", "equal", "worse": sentences by the difference, of a point at least, "sentences":
    [one of Translations.texts with its "drop"]}; None without references, or without translations of both.
    """
    roles = TestSet("", "", "", tuple({"name": name} for name in translations.hypotheses))
    teacher, student = roles.teacher(), roles.final()
    if translations.references is None or teacher is None or student is None:
        return None
    pairs = (translations.hypotheses[entry["name"]] for entry in (teacher, student))
    drops = [
        _sentence_chrf(theirs, reference) - _sentence_chrf(ours, reference)
        for theirs, ours, reference in zip(*pairs, translations.references, strict=True)
    ]
    worst: dict[tuple[str, ...], int] = {}  # a sentence that occurs twice is shown once
    for index in sorted(range(len(drops)), key=lambda index: -drops[index]):
        if drops[index] < _NOTICEABLE or len(worst) == count:
            break
        texts = translations.texts(index)
        worst.setdefault((texts.get("source", ""), texts["reference"], texts["hypotheses"][student["name"]]), index)
    better = sum(drop <= -_NOTICEABLE for drop in drops)
    worse = sum(drop >= _NOTICEABLE for drop in drops)
    return {
        "teacher": teacher["name"],
        "student": student["name"],
        "better": better,
        "equal": len(drops) - better - worse,
        "worse": worse,
        "sentences": [translations.texts(index) | {"drop": round(drops[index], 1)} for index in worst.values()],
    }


def _sentence_chrf(hypothesis: str, reference: str) -> float:
    return float(CHRF().sentence_score(hypothesis, [reference]).score)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
