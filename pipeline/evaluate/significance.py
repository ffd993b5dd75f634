"""Say which differences between models are more than luck: paired bootstrap resampling over their translations.

Every pair of models is compared on the same resampled test sets: students with teachers, 8-bit students with students.
The p-value is sacreBLEU's (its resamples too, for the same seed); the confidence interval of the difference comes from
the same resamples. Source: Koehn, "Statistical Significance Tests for Machine Translation Evaluation", 2004.
"""

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sacrebleu.metrics.chrf import CHRF

from pipeline.common.command import run_command
from pipeline.common.comparison import role
from pipeline.common.corpus import read_columns
from pipeline.common.errors import UserError
from pipeline.common.files import write_json
from pipeline.evaluate.scoring import bleu_metric

SAMPLES = 1000
SEED = 12345  # sacreBLEU's own
CONFIDENCE = 0.95
ORDER = (
    "teacher",
    "other",
    "backward",
    "student",
    "finetuned",
    "unfinetuned",
    "quantized",
)  # what a later one is compared with first
_INDICES_AT_ONCE = 10_000_000

EXAMPLE = """example:
  python -m pipeline.evaluate.significance --dataset flores_devtest --src en --trg de --references flores.de.ref.zst \\
    --hypotheses teacher-1 teacher.de.zst --hypotheses student student.de.zst --hypotheses student-int8 int8.de.zst \\
    --output flores.significance.json"""

Array = npt.NDArray[np.float64]
logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.evaluate.significance",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dataset", required=True, help="the test set's name in the report")
    parser.add_argument("--src", required=True, help="source language")
    parser.add_argument("--trg", required=True, help="target language")
    parser.add_argument("--references", type=Path, required=True, help="the test set's reference translations")
    parser.add_argument(
        "--hypotheses",
        action="append",
        nargs=2,
        required=True,
        metavar=("NAME", "F"),
        help="a model's name and its translations; repeatable",
    )
    parser.add_argument("--samples", type=int, default=SAMPLES, help=f"resampled test sets (default: {SAMPLES})")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the resampling (default: {SEED})")
    parser.add_argument("--output", type=Path, required=True, help="the significance.json to write")
    args = parser.parse_args(arguments)
    if args.samples < 100:
        raise UserError(f"--samples must be at least 100 for a confidence interval, found {args.samples}")
    if args.seed < 0:
        raise UserError(f"--seed must not be negative, found {args.seed}")
    names = [name for name, _ in args.hypotheses]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"--hypotheses names the model {twice!r} twice: every model needs a name of its own")
    rows = list(read_columns(args.references, *(Path(path) for _, path in args.hypotheses)))
    if not rows:
        raise UserError(f"{args.references} has no lines: at least one is needed to compare models")
    references, *columns = zip(*rows, strict=True)
    hypotheses = sorted(zip(names, columns, strict=True), key=lambda named: ORDER.index(role({"name": named[0]})))
    result = compare_models(dict(hypotheses), references, args.trg, samples=args.samples, seed=args.seed)
    write_json(args.output, {"dataset": args.dataset, "src": args.src, "trg": args.trg, **result})
    for pair in result["pairs"]:
        chrf = pair["chrf"]
        logger.info(f"{pair['new']} - {pair['old']}: {chrf['delta']:+.2f} chrF, p = {chrf['p']:.4f}")


def compare_models(
    hypotheses: Mapping[str, Sequence[str]],
    references: Sequence[str],
    language: str,
    samples: int = SAMPLES,
    seed: int = SEED,
) -> dict[str, Any]:
    """The test of all pairs of models, each with those before it; `hypotheses` are their translations, by name.

    {"sentences", "samples", "seed", "confidence", "method",
    "models": {name: {metric: {"score", "low", "high"}}},
    "pairs": [{"new", "old", metric: {"delta", "low", "high", "p", "significant"}}]} for the metrics chrf and bleu
    """
    metrics = {"chrf": CHRF(), "bleu": bleu_metric(language)}
    models: dict[str, dict[str, Any]] = {name: {} for name in hypotheses}
    pairs: list[dict[str, Any]] = [{"new": new, "old": old} for old, new in combinations(hypotheses, 2)]
    for key, metric in metrics.items():
        statistics = {
            name: np.array(metric._extract_corpus_statistics(list(lines), [list(references)]), dtype=np.float64)
            for name, lines in hypotheses.items()
        }
        whole = {name: _scores(metric, table.sum(axis=0, keepdims=True))[0] for name, table in statistics.items()}
        resampled = resample(metric, statistics, samples, seed)
        for name, scores in resampled.items():
            low, high = confidence_interval(scores)
            models[name][key] = {"score": round(whole[name], 4), "low": low, "high": high}
        for pair in pairs:
            pair[key] = _difference(pair["new"], pair["old"], whole, resampled)
    return {
        "sentences": len(references),
        "samples": samples,
        "seed": seed,
        "confidence": CONFIDENCE,
        "method": "paired bootstrap resampling, p as sacreBLEU computes it, intervals by percentiles",
        "signatures": {key: metric.get_signature().format() for key, metric in metrics.items()},
        "models": models,
        "pairs": pairs,
    }


def resample(metric: Any, statistics: Mapping[str, Array], samples: int, seed: int) -> dict[str, Array]:
    """Every model's scores of the same resampled test sets. `statistics`: one row per sentence, which add up."""
    scores: dict[str, list[Array]] = {name: [] for name in statistics}
    sentences = len(next(iter(statistics.values())))
    for counts in _sentence_counts(sentences, samples, seed):
        for name, table in statistics.items():
            scores[name].append(_scores(metric, counts @ table))
    return {name: np.concatenate(parts) for name, parts in scores.items()}


def _sentence_counts(sentences: int, samples: int, seed: int) -> Iterator[Array]:
    """How often each sentence is in each resampled test set: [samples, sentences], in parts that fit in memory."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _INDICES_AT_ONCE // sentences)
    for start in range(0, samples, at_once):
        indices = generator.choice(sentences, size=(min(at_once, samples - start), sentences), replace=True)
        yield np.stack([np.bincount(row, minlength=sentences) for row in indices]).astype(np.float64)


def _scores(metric: Any, sums: Array) -> Array:
    return np.array([metric._compute_score_from_stats(row).score for row in sums])


def _difference(new: str, old: str, whole: Mapping[str, float], resampled: Mapping[str, Array]) -> dict[str, Any]:
    """A difference is significant when zero lies outside its confidence interval, a two-sided test."""
    differences = resampled[new] - resampled[old]
    delta = whole[new] - whole[old]
    low, high = confidence_interval(differences)
    return {
        "delta": round(float(delta), 4),
        "low": low,
        "high": high,
        "p": round(p_value(differences, delta), 6),
        "significant": not low <= 0 <= high,
    }


def p_value(differences: Array, delta: float) -> float:
    """How probable a difference as large as `delta` is when there is none, as sacreBLEU computes it.

    It centres the sizes of the differences, not the differences, so that it comes near a one-sided p: about half of a
    two-sided one. Models that never differ have 1, where sacreBLEU counts only what is truly larger and has nearly 0.
    """
    if not differences.any():
        return 1.0
    sizes = np.abs(differences)
    beyond = int(np.sum(sizes - sizes.mean() > abs(delta)))
    return (beyond + 1) / (len(differences) + 1)


def confidence_interval(values: Array) -> tuple[float, float]:
    """The limits that 95 % of the values lie between."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, (tail, 1 - tail))
    return round(float(low), 4), round(float(high), 4)


if __name__ == "__main__":
    run_command(main)
