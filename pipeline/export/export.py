"""Put a finished model together: CTranslate2 in two precisions, Marian's format, metadata and a model card.

With --huggingface also a directory for transformers (needs the extra [huggingface]). Before the folder appears, both
CTranslate2 models in it are loaded and translate a few pieces, and the float32 one and the one for transformers are
compared with the model, on --sample where it is given: the log has the figures.
"""

import argparse
import dataclasses
import importlib.metadata
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.common.command import run_command
from pipeline.common.errors import UserError
from pipeline.common.files import read_json, sha256, write_json
from pipeline.export.card import model_card
from pipeline.model import parity
from pipeline.model.config import DROPOUTS, ModelConfig
from pipeline.model.decoding import decoder_yml
from pipeline.model.formats import ctranslate2 as ctranslate2_format
from pipeline.model.formats import huggingface, npz
from pipeline.model.formats.directory import whole_directory
from pipeline.model.transformer import parameter_shapes
from pipeline.model.vocab import Vocab

logger = logging.getLogger(__name__)

EXAMPLE = """example:
  python -m pipeline.export.export --model final.model.npz.best-chrf.npz --quantized ctranslate2-int8 \\
    --src-vocab vocab.en.spm --trg-vocab vocab.de.spm --src en --trg de --metrics student.metrics.json \\
    --output-dir export
"""

FLOAT32, INT8, MARIAN, HUGGINGFACE = "ctranslate2/float32", "ctranslate2/int8", "marian", "huggingface"
PROBE_PIECES = 4
_EXAMPLES = {
    "cs": "Dobrý den!",
    "de": "Guten Tag!",
    "en": "Good morning!",
    "es": "Buenos días.",
    "fr": "Bonjour !",
    "it": "Buongiorno!",
    "nl": "Goedemorgen!",
    "pl": "Dzień dobry!",
    "pt": "Bom dia!",
    "ru": "Доброе утро!",
    "uk": "Доброго ранку!",
}


@dataclasses.dataclass(frozen=True)
class Export:
    """What goes into an export: a model, the directory of its quantized form, vocabularies, languages, and more."""

    model: Path
    quantized: Path
    vocabs: tuple[Path, Path]
    languages: tuple[str, str]
    metrics: Sequence[Path] = ()
    shortlist: Path | None = None
    huggingface: bool = False
    sample: Sequence[Path] = ()  # sentences of the source language, and perhaps their translations


def export(parts: Export, output_dir: Path) -> None:
    """Write the folder. Raises UserError when the parts do not belong together, or a model does not translate."""
    model = npz.load(parts.model)
    config = model.config
    sample = _sample(parts, config)
    metrics = [read_json(path) for path in parts.metrics]
    with whole_directory(output_dir) as folder:
        vocab_names = [f"vocab.{language}.spm" for language in parts.languages]
        for name in (FLOAT32, INT8, MARIAN):
            (folder / name).mkdir(parents=True)
            for vocab, vocab_name in zip(parts.vocabs, vocab_names, strict=True):
                shutil.copyfile(vocab, folder / name / vocab_name)
        ctranslate2_format.save(model, folder / FLOAT32, parts.vocabs, sample=sample)
        _copy_quantized(parts.quantized, folder / INT8)
        _write_marian(parts, folder / MARIAN, vocab_names)
        if parts.huggingface:
            huggingface.save(model, folder / HUGGINGFACE, parts.vocabs, parts.languages, sample)
        for name in (FLOAT32, INT8):
            check_translates(folder / name, folder / name / vocab_names[0])
        metadata = describe(folder, parts.languages, config, vocab_names, metrics)
        write_json(folder / "metadata.json", metadata)
        example = _EXAMPLES.get(parts.languages[0].split("_")[0].split("-")[0], "1, 2, 3")
        (folder / "MODEL_CARD.md").write_text(model_card(metadata, example), encoding="utf-8")
    sizes = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in metadata["bytes"].items())
    logger.info(f"exported to {output_dir}: {sizes}")


def _sample(parts: Export, config: ModelConfig) -> parity.Sample:
    if not parts.sample:
        return parity.random_sample(config.dim_vocabs[0])
    return parity.read_sample(Vocab.load(parts.vocabs[0]), *parts.sample)


def _copy_quantized(quantized: Path, target: Path) -> None:
    if not (quantized / "model.bin").is_file():
        raise UserError(f"{quantized} is not a CTranslate2 model: it has no model.bin")
    for file in sorted(quantized.iterdir()):
        if file.is_file() and file.suffix != ".spm":
            shutil.copyfile(file, target / file.name)


def _write_marian(parts: Export, target: Path, vocab_names: Sequence[str]) -> None:
    shutil.copyfile(parts.model, target / "model.npz")
    if parts.shortlist:
        shutil.copyfile(parts.shortlist, target / parts.shortlist.name)
    (target / "decoder.yml").write_text(decoder_yml("model.npz", vocab_names, beam_size=1), encoding="utf-8")


def check_translates(directory: Path, src_vocab: Path) -> None:
    """Load a CTranslate2 directory and translate a few pieces of its vocabulary. Raises UserError when that fails."""
    pieces = [piece for piece in Vocab.load(src_vocab).all_pieces if not piece.startswith("<")][:PROBE_PIECES]
    try:
        translator = ctranslate2_format.load(directory)
        results = translator.translate_batch([pieces], beam_size=1, max_decoding_length=20, return_scores=True)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the model in {directory} does not translate: {error}") from error
    if not results[0].scores[0] <= 0:
        raise UserError(f"the model in {directory} does not translate: its scores are no numbers")


def describe(
    folder: Path,
    languages: tuple[str, str],
    config: ModelConfig,
    vocab_names: Sequence[str],
    metrics: list[Any],
) -> dict[str, Any]:
    """The content of metadata.json for the files in a folder."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    architecture = {
        field.name.replace("_", "-"): getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name not in DROPOUTS
    }
    hashes = [files[f"{MARIAN}/{name}"]["sha256"] for name in vocab_names]
    vocabularies = {
        side: {"file": name, "size": size}
        for side, name, size in zip(("src", "trg"), vocab_names, config.dim_vocabs, strict=True)
    }
    return {
        "src": languages[0],
        "trg": languages[1],
        "architecture": architecture,
        "parameters": sum(rows * columns for rows, columns in parameter_shapes(config).values()),
        "vocabularies": {**vocabularies, "shared": hashes[0] == hashes[1]},
        "bytes": {
            name: sum(entry["bytes"] for path, entry in files.items() if path.startswith(f"{name}/"))
            for name in (INT8, FLOAT32, MARIAN, HUGGINGFACE)
            if (folder / name).is_dir()
        },
        "files": files,
        "metrics": metrics,
        "versions": {name: importlib.metadata.version(name) for name in ("limbeck", "ctranslate2", "torch")},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="model.npz")
    parser.add_argument("--quantized", type=Path, required=True, help="its directory, as quantize writes it")
    parser.add_argument("--src-vocab", type=Path, required=True, help="vocabulary of the source language (.spm)")
    parser.add_argument("--trg-vocab", type=Path, required=True, help="vocabulary of the target language (.spm)")
    parser.add_argument("--src", required=True, help="source language")
    parser.add_argument("--trg", required=True, help="target language")
    parser.add_argument("--shortlist", type=Path, help="lexical shortlist to put beside the weights")
    parser.add_argument(
        "--metrics", type=Path, nargs="+", action="extend", default=[], help="metrics.json files of its evaluation"
    )
    parser.add_argument("--huggingface", action="store_true", help="write a directory for transformers, too")
    parser.add_argument(
        "--sample",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="sentences of the source language to compare the exported models on, and perhaps their translations",
    )
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to write")
    args = parser.parse_args(arguments)
    if len(args.sample) > 2:
        raise UserError(f"--sample takes sentences and perhaps their translations, not {len(args.sample)} files")
    parts = Export(
        model=args.model,
        quantized=args.quantized,
        vocabs=(args.src_vocab, args.trg_vocab),
        languages=(args.src, args.trg),
        metrics=args.metrics,
        shortlist=args.shortlist,
        huggingface=args.huggingface,
        sample=args.sample,
    )
    export(parts, args.output_dir)


if __name__ == "__main__":
    run_command(main)
