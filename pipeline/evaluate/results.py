"""A test set and what is written of a model on it: its figures, each with how it was measured, and its translations."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.common.corpus import read_parallel, write_columns
from pipeline.common.errors import UserError
from pipeline.common.files import write_json
from pipeline.evaluate.comet import Comet
from pipeline.evaluate.measure import MEMORY_MEASURED, SPEED_MEASURED
from pipeline.evaluate.scoring import bleu, chrf, ter

# How the figures of metrics.json came about, by their keys.
MEASURED = {
    "chrf": "sacreBLEU's corpus chrF over all lines, as its signature says",
    "bleu": "sacreBLEU's corpus BLEU over all lines, as its signature says",
    "ter": "sacreBLEU's corpus TER over all lines, as its signature says; lower is better; null where a language has "
    "no words that it can split",
    "comet": "system score of the COMET model that its signature names",
    "speed": SPEED_MEASURED,
    "memory": MEMORY_MEASURED,
    "size-bytes": "the model's files on disk, without SentencePiece vocabularies and the shortlist; all files of "
    "another maker's model",
    "parameters": "trained numbers, counted from the model's architecture; null where the files do not tell it",
    "cut-sources": "sources with more pieces than max-length, whose ends are not translated",
}


def read_test_set(src_path: Path, trg_path: Path) -> tuple[list[str], list[str]]:
    """Sources and references, all in memory (test sets are small).

    Raises UserError when the sides differ in length or there is not one sentence with words.
    """
    pairs = list(read_parallel(src_path, trg_path))
    if not any(source.strip() for source, _ in pairs):
        raise UserError(f"the test set {src_path} has no sentences: at least one is needed to evaluate a model")
    return [source for source, _ in pairs], [reference for _, reference in pairs]


def quality(
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[str],
    language: str,
    comet: Comet | None = None,
) -> dict[str, Any]:
    """The scores of translations into a language, by their keys in metrics.json."""
    scores: dict[str, Any] = {
        "sentences": len(sources),
        "chrf": chrf(hypotheses, references),
        "bleu": bleu(hypotheses, references, language),
        "ter": ter(hypotheses, references, language),
    }
    if comet:
        scores["comet"] = comet.score(sources, hypotheses, references)
    return scores


def summary_line(metrics: dict[str, Any]) -> str:
    """The figures in one line for the log."""
    parts = [f"chrF {metrics['chrf']['score']:.1f}", f"BLEU {metrics['bleu']['score']:.1f}"]
    if "speed" in metrics:
        parts.append(f"{metrics['speed']['words-per-second']:,.0f} words/s on one thread")
    if "memory" in metrics:
        parts.append(f"{metrics['memory']['peak-rss-bytes'] / 1e6:,.0f} MB of memory")
    if "size-bytes" in metrics:
        parts.append(f"{metrics['size-bytes'] / 1e6:,.1f} MB on disk")
    return f"{metrics['name']} on {metrics['dataset']}: {', '.join(parts)}"


def write_outputs(
    prefix: Path, metrics: dict[str, Any], sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]
) -> None:
    """PREFIX.SRC.zst, PREFIX.TRG.zst (translations), PREFIX.TRG.ref.zst and, last, PREFIX.metrics.json.

    The figures get "measured": how each of them came about, by its key; what `metrics` says of it already stays.
    """
    measured = {key: how for key, how in MEASURED.items() if key in metrics} | metrics.get("measured", {})
    endings = (f"{metrics['src']}.zst", f"{metrics['trg']}.zst", f"{metrics['trg']}.ref.zst")
    with write_columns(*(with_ending(prefix, ending) for ending in endings)) as writer:
        for row in zip(sources, hypotheses, references, strict=True):
            writer.write(*row)
    write_json(with_ending(prefix, "metrics.json"), {**metrics, "measured": measured})


def with_ending(prefix: Path, ending: str) -> Path:
    return prefix.with_name(f"{prefix.name}.{ending}")
