"""The figures of models as files: metrics.json of an evaluation, significance.json of comparisons of them."""

import math
from pathlib import Path
from typing import Any

from pipeline.common.errors import UserError
from pipeline.common.files import read_json


def read_metrics(path: Path) -> dict[str, Any]:
    """The contents of a metrics.json. Raises UserError when what reports and model cards build on is not there."""
    metrics = finite(read_json(path))
    try:
        texts = [metrics[key] for key in ("name", "dataset", "src", "trg")]
        scores = [metrics[key]["score"] for key in ("chrf", "bleu")]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is no metrics file of pipeline.evaluate.evaluate: it has no {error}") from error
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(score, int | float) for score in scores):
        raise UserError(f"{path}: name, dataset, src and trg must be text, and the scores of chrf and bleu numbers")
    return dict(metrics)


def read_significance(path: Path) -> dict[str, Any]:
    """The contents of a significance.json. Raises UserError when what reports and model cards build on is not there."""
    test = finite(read_json(path))
    try:
        for pair in test["pairs"]:
            for metric in ("chrf", "bleu"):
                numbers = [pair[metric][key] for key in ("delta", "low", "high", "p")]
                if not all(isinstance(number, int | float) for number in numbers):
                    raise UserError(f"{path}: the {metric} of {pair['new']} and {pair['old']} must be numbers")
                if not isinstance(pair[metric]["significant"], bool):
                    raise UserError(f"{path}: significant must be true or false for {pair['new']} and {pair['old']}")
        if not all(isinstance(test[key], str) for key in ("dataset", "src", "trg")):
            raise UserError(f"{path}: dataset, src and trg must be text")
        if not isinstance(test["samples"], int):
            raise UserError(f"{path}: samples must be a number")
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is no file of pipeline.evaluate.significance: {error}") from error
    return dict(test)


def finite(value: Any) -> Any:
    """A JSON value without NaN and infinities, which JSON does not know: they become null."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
