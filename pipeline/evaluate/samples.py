"""A few translations for a person to read: the same sentences of every model, short and long ones."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sacrebleu.metrics.chrf import CHRF

from pipeline.common.corpus import read_columns
from pipeline.common.errors import UserError

SAMPLES = 10


def sample_translations(
    sources: Path | None, references: Path | None, hypotheses: Sequence[tuple[str, Path]], count: int = SAMPLES
) -> list[dict[str, Any]]:
    """About `count` sentences of a test set with every model's translation and its sentence chrF.

    The choice depends on the test set alone: sentences sorted by length are cut into `count` equal parts, and each part
    gives the sentence with the smallest digest. Raises UserError when the files differ in length or hold no line.
    """
    if not hypotheses:
        return []
    paths = [path for path in (sources, references) if path]
    rows = list(read_columns(*paths, *(path for _, path in hypotheses)))
    if not rows:
        raise UserError(f"{hypotheses[0][1]} has no lines to show as samples")
    names = [*(["source"] if sources else []), *(["reference"] if references else [])]
    return [_sample(names, [name for name, _ in hypotheses], rows[index]) for index in choose_varied(rows, count)]


def choose_varied(rows: Sequence[Sequence[str]], count: int) -> list[int]:
    """Indices of about `count` rows with different first columns, from the shortest to the longest."""
    first_index: dict[str, int] = {}
    for index, row in enumerate(rows):
        if row[0].strip():
            first_index.setdefault(row[0], index)
    texts = sorted(first_index, key=lambda text: (len(text), text))
    count = min(count, len(texts))
    parts = [texts[part * len(texts) // count : (part + 1) * len(texts) // count] for part in range(count)]
    return [first_index[min(part, key=_digest)] for part in parts]


def _sample(names: Sequence[str], models: Sequence[str], row: Sequence[str]) -> dict[str, Any]:
    given = dict(zip(names, row, strict=False))
    translations = dict(zip(models, row[len(names) :], strict=True))
    sample: dict[str, Any] = {**given, "hypotheses": translations}
    if "reference" in given:
        metric = CHRF()
        sample["chrf"] = {
            model: round(metric.sentence_score(text, [given["reference"]]).score, 1)
            for model, text in translations.items()
        }
    return sample


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
