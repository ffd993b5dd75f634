"""Export a model for the browser: what Bergamot, Firefox's translation engine, loads, and nothing else.

The folder holds the model in eight bits (model.ende.intgemm.alphas.bin), the vocabulary (vocab.ende.spm; srcvocab and
trgvocab when there are two), with --shortlist the lexical shortlist (lex.50.50.ende.s2t.bin), each of them gzipped as
well, metadata.json and a model card. The ranges of activations are those that a fine-tuned model carries, or are found
on --sample. At the end the model is read back and compared with the one in float32, in the engine's arithmetic.
"""

import argparse
import gzip
import logging
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sacrebleu

from pipeline.common.command import run_command
from pipeline.common.errors import UserError
from pipeline.common.files import write_json
from pipeline.export import card, snippets
from pipeline.export.arguments import add_shared_arguments
from pipeline.export.description import describe_file, describe_model, describe_provenance
from pipeline.export.scores import Figures
from pipeline.export.vocabularies import load_vocabs
from pipeline.model import parity
from pipeline.model.calibration import calibrate
from pipeline.model.config import ModelConfig
from pipeline.model.formats import bergamot, lexicon, npz
from pipeline.model.formats.directory import whole_directory
from pipeline.model.hardware import cpu_threads
from pipeline.model.quantization import Quantization, QuantizedTransformer, load_alphas
from pipeline.model.transformer import Transformer
from pipeline.model.vocab import Vocab

logger = logging.getLogger(__name__)

EXAMPLE = """example:
  python -m pipeline.export.browser --model final.model.npz.best-chrf.npz --src-vocab vocab.en.spm \\
    --trg-vocab vocab.de.spm --shortlist lex.s2t.pruned.zst --sample devset.en.zst devset.de.zst --src en --trg de \\
    --output-dir browser
"""

_USES = {
    "model": "the model in eight bits",
    "vocab": "the vocabulary (SentencePiece) of both languages",
    "srcvocab": "the vocabulary (SentencePiece) of the source language",
    "trgvocab": "the vocabulary (SentencePiece) of the target language",
    "lex": "the lexical shortlist, without which translating is slower",
}
COMPRESSION = 9  # gzip's best: a file is compressed once and downloaded often


@dataclass(frozen=True)
class BrowserExport:
    """What goes into the folder. `first` and `best` are the shortlist's sizes: ids of the target vocabulary that every
    batch has, and entries of a source piece. The sample has sentences, and perhaps their translations."""

    model: Path
    vocabs: tuple[Path, Path]
    languages: tuple[str, str]
    sample: Sequence[Path]
    shortlist: Path | None = None
    first: int = lexicon.FIRST
    best: int = lexicon.BEST
    figures: Figures = field(default_factory=Figures)
    config: Path | None = None


def export(parts: BrowserExport, output_dir: Path) -> None:
    """Write the folder, whole or not at all.

    Raises UserError when the parts do not belong together, the engine cannot compute the model, or what was written
    does not translate like it.
    """
    model = npz.load(parts.model)
    bergamot.check_architecture(model.config)
    vocabs = load_vocabs(parts.vocabs, model.config)
    sample = parity.read_sample(vocabs[0], *parts.sample)
    alphas = load_alphas(parts.model)
    calibrated_on = None if alphas else sample.description
    alphas = alphas or calibrate(model, sample.sources)
    pair = "".join(parts.languages)
    with whole_directory(output_dir) as folder:
        weights = folder / f"model.{pair}.intgemm.alphas.bin"
        bergamot.save(model, weights, alphas)
        names = {"model": weights.name, **_copy_vocabs(parts, folder)}
        if parts.shortlist:
            names["lex"] = f"lex.{parts.first}.{parts.best}.{pair}.s2t.bin"
            entries = lexicon.read_text(parts.shortlist, *vocabs, parts.first, parts.best)
            lexicon.write(entries, folder / names["lex"])
        else:
            logger.info("no --shortlist: the engine computes all pieces of the target vocabulary, which is slower")
        quantization = {"calibrated-on": calibrated_on, **compare(model, weights, vocabs[1], sample)}
        with ThreadPoolExecutor(cpu_threads()) as threads:
            files = dict(zip(names, threads.map(_compress, [folder / name for name in names.values()]), strict=True))
        metadata = describe(parts, model.config, files) | {"quantization": quantization}
        write_json(folder / "metadata.json", metadata)
        (folder / "MODEL_CARD.md").write_text(_card(parts, metadata), encoding="utf-8")
    sizes = ", ".join(f"{file['name']} {file['bytes'] / 1e6:.1f} MB" for file in files.values())
    logger.info(f"exported for the browser to {output_dir}: {sizes}")


def describe(parts: BrowserExport, config: ModelConfig, files: Mapping[str, Any]) -> dict[str, Any]:
    """What metadata.json says of the files, by their roles, and of what they were made from."""
    inputs = {"model": parts.model, "src-vocab": parts.vocabs[0], "trg-vocab": parts.vocabs[1]}
    if parts.shortlist:
        inputs["shortlist"] = parts.shortlist
    return {
        **describe_model(parts.languages, config),
        "shared-vocabulary": "vocab" in files,
        "bytes": sum(file["bytes"] for file in files.values()),
        "bytes-gzipped": sum(file["gzip"]["bytes"] for file in files.values()),
        "files": files,
        "shortlist": {"first": parts.first, "best": parts.best} if parts.shortlist else None,
        "engine-options": bergamot.OPTIONS,
        **parts.figures.to_json(),
        "provenance": describe_provenance(inputs, parts.config),
    }


def _card(parts: BrowserExport, metadata: Mapping[str, Any]) -> str:
    items = [
        card.Item(entry["name"], entry["bytes"], f"{_USES[role]}{', compressed' if entry is file['gzip'] else ''}")
        for role, file in metadata["files"].items()
        for entry in (file, file["gzip"])
    ]
    found = metadata["quantization"]
    note = (
        f"Read back, in the engine's arithmetic, the 8-bit model translates {found['identical-to-float32']} of "
        f"{found['sentences']} sentences as the float32 one does; chrF between their translations is "
        f"{found['chrf-between']:.1f}"
    )
    if "chrf" in found:
        note += f", against references {found['chrf']:.1f} (float32: {found['chrf-float32']:.1f})"
    return card.model_card(metadata, parts.figures, items, [snippets.browser_use(metadata)], f"{note}.")


def _copy_vocabs(parts: BrowserExport, folder: Path) -> dict[str, str]:
    """Copy the vocabularies, or the one when both are the same; names by their roles."""
    pair = "".join(parts.languages)
    if parts.vocabs[0].read_bytes() == parts.vocabs[1].read_bytes():
        names = {"vocab": f"vocab.{pair}.spm"}
    else:
        names = {"srcvocab": f"srcvocab.{pair}.spm", "trgvocab": f"trgvocab.{pair}.spm"}
    for name, path in zip(names.values(), parts.vocabs, strict=False):
        shutil.copyfile(path, folder / name)
    return names


def compare(model: Transformer, written: Path, trg_vocab: Vocab, sample: parity.Sample) -> dict[str, Any]:
    """How far what was written, in the engine's arithmetic, is from the model in float32: in log-probability, and in
    chrF of greedy translations against each other and against the references.

    Raises UserError when it does not compute the same model.
    """
    quantization = Quantization("browser", alphas=bergamot.load_alphas(written))
    simulated = QuantizedTransformer.of(bergamot.load(written), quantization)
    exact = parity.TorchEngine(model)
    found = parity.compare(exact, parity.TorchEngine(simulated), sample)
    ours, theirs = (trg_vocab.decode(ids) for ids in (exact.translate(sample.sources, 1), found.greedy))
    figures: dict[str, Any] = {
        "sentences": found.sentences,
        "identical-to-float32": found.same_greedy,
        "mean-log-probability-difference": round(found.mean_difference, 6),
        "chrf-between": _chrf(theirs, ours),
    }
    if sample.references:
        figures |= {"chrf-float32": _chrf(ours, sample.references), "chrf": _chrf(theirs, sample.references)}
    logger.info(f"Bergamot int8, read back, against torch {found.describe()}; chrF between {figures['chrf-between']}")
    if sample.references:
        logger.info(f"chrF on {sample.description}: float32 {figures['chrf-float32']}, int8 {figures['chrf']}")
    parity.INT8.check(found, "Bergamot int8")
    return figures


def _chrf(translations: list[str], references: list[str]) -> float:
    return round(float(sacrebleu.corpus_chrf(translations, [references]).score), 2)


def _compress(path: Path) -> dict[str, Any]:
    """Write a gzipped copy, the same bytes every time; the sizes and digests of both."""
    compressed = path.with_name(f"{path.name}.gz")
    compressed.write_bytes(gzip.compress(path.read_bytes(), COMPRESSION, mtime=0))
    return {"name": path.name, **describe_file(path), "gzip": {"name": compressed.name, **describe_file(compressed)}}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="model.npz")
    parser.add_argument("--src-vocab", type=Path, required=True, help="vocabulary of the source language (.spm)")
    parser.add_argument("--trg-vocab", type=Path, required=True, help="vocabulary of the target language (.spm)")
    parser.add_argument("--src", required=True, help="source language")
    parser.add_argument("--trg", required=True, help="target language")
    parser.add_argument(
        "--sample",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="sentences of the source language to calibrate and compare on, and perhaps their translations",
    )
    parser.add_argument("--shortlist", type=Path, help="lexical shortlist as text: lex.s2t.pruned.zst")
    add_shared_arguments(parser)
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to write")
    args = parser.parse_args(arguments)
    if len(args.sample) > 2:
        raise UserError(f"--sample takes sentences and perhaps their translations, not {len(args.sample)} files")
    parts = BrowserExport(
        model=args.model,
        vocabs=(args.src_vocab, args.trg_vocab),
        languages=(args.src, args.trg),
        sample=args.sample,
        shortlist=args.shortlist,
        first=args.shortlist_first,
        best=args.shortlist_best,
        figures=Figures.read(args.metrics, args.significance),
        config=args.config,
    )
    export(parts, args.output_dir)


if __name__ == "__main__":
    run_command(main)
