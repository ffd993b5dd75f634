"""Export a model for the browser: what Bergamot, Firefox's translation engine, loads, and nothing else.

The folder holds the model in eight bits (model.ende.intgemm.alphas.bin), the vocabulary (vocab.ende.spm; srcvocab and
trgvocab when there are two), with --shortlist the lexical shortlist (lex.50.50.ende.s2t.bin), each of them gzipped as
well, and metadata.json. The ranges of activations are those that a fine-tuned model carries, or are found on --sample.
At the end the model is read back and compared with the one in float32, in the engine's arithmetic.
"""

import argparse
import dataclasses
import gzip
import importlib.metadata
import logging
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sacrebleu

from pipeline.common.command import run_command
from pipeline.common.errors import UserError
from pipeline.common.files import read_json, sha256, write_json
from pipeline.model import parity
from pipeline.model.calibration import calibrate
from pipeline.model.config import DROPOUTS, ModelConfig
from pipeline.model.formats import bergamot, lexicon, npz
from pipeline.model.formats.directory import whole_directory
from pipeline.model.hardware import cpu_threads
from pipeline.model.quantization import Quantization, QuantizedTransformer, load_alphas
from pipeline.model.transformer import Transformer, parameter_shapes
from pipeline.model.vocab import Vocab

logger = logging.getLogger(__name__)

EXAMPLE = """example:
  python -m pipeline.export.browser --model final.model.npz.best-chrf.npz --src-vocab vocab.en.spm \\
    --trg-vocab vocab.de.spm --shortlist lex.s2t.pruned.zst --sample devset.en.zst devset.de.zst --src en --trg de \\
    --output-dir browser
"""

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
    metrics: Sequence[Path] = ()


def export(parts: BrowserExport, output_dir: Path) -> None:
    """Write the folder, whole or not at all.

    Raises UserError when the parts do not belong together, the engine cannot compute the model, or what was written
    does not translate like it.
    """
    model = npz.load(parts.model)
    bergamot.check_architecture(model.config)
    vocabs = _vocabs(parts, model.config)
    sample = parity.read_sample(vocabs[0], *parts.sample)
    alphas = load_alphas(parts.model)
    calibrated_on = None if alphas else sample.description
    alphas = alphas or calibrate(model, sample.sources)
    pair = "".join(parts.languages)
    metrics = [read_json(path) for path in parts.metrics]
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
        write_json(
            folder / "metadata.json",
            describe(parts, model.config, files) | {"quantization": quantization, "metrics": metrics},
        )
    sizes = ", ".join(f"{file['name']} {file['bytes'] / 1e6:.1f} MB" for file in files.values())
    logger.info(f"exported for the browser to {output_dir}: {sizes}")


def describe(parts: BrowserExport, config: ModelConfig, files: Mapping[str, Any]) -> dict[str, Any]:
    """What metadata.json says of the files, by their roles, and of what they were made from."""
    inputs = {"model": parts.model, "src-vocab": parts.vocabs[0], "trg-vocab": parts.vocabs[1]}
    if parts.shortlist:
        inputs["shortlist"] = parts.shortlist
    return {
        "src": parts.languages[0],
        "trg": parts.languages[1],
        "architecture": {
            field.name.replace("_", "-"): getattr(config, field.name)
            for field in dataclasses.fields(config)
            if field.name not in DROPOUTS
        },
        "parameters": sum(rows * columns for rows, columns in parameter_shapes(config).values()),
        "bytes": sum(file["bytes"] for file in files.values()),
        "bytes-gzipped": sum(file["gzip"]["bytes"] for file in files.values()),
        "files": files,
        "shortlist": {"first": parts.first, "best": parts.best} if parts.shortlist else None,
        "engine-options": bergamot.OPTIONS,
        "inputs": {role: {"name": path.name, "sha256": sha256(path)} for role, path in inputs.items()},
        "versions": {name: importlib.metadata.version(name) for name in ("limbeck", "torch", "sentencepiece")},
    }


def _vocabs(parts: BrowserExport, config: ModelConfig) -> tuple[Vocab, Vocab]:
    loaded = Vocab.load(parts.vocabs[0]), Vocab.load(parts.vocabs[1])
    for vocab, path, size in zip(loaded, parts.vocabs, config.dim_vocabs, strict=True):
        if len(vocab) != size:
            raise UserError(f"{path} has {len(vocab)} pieces, but the model was trained with {size}")
    return loaded


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
    return {**_file(path), "gzip": _file(compressed)}


def _file(path: Path) -> dict[str, Any]:
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}


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
    parser.add_argument(
        "--shortlist-first",
        type=int,
        default=lexicon.FIRST,
        help="so many first ids of the target vocabulary are always candidates (default: %(default)s)",
    )
    parser.add_argument(
        "--shortlist-best",
        type=int,
        default=lexicon.BEST,
        help="so many candidates are kept for each source piece (default: %(default)s)",
    )
    parser.add_argument(
        "--metrics", type=Path, nargs="+", action="extend", default=[], help="metrics.json files of its evaluation"
    )
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
        metrics=args.metrics,
    )
    export(parts, args.output_dir)


if __name__ == "__main__":
    run_command(main)
