"""Put a finished model together for those who use it: CTranslate2 in two precisions, Hugging Face, Marian's format.

Beside them come metadata.json and a model card. What an engine cannot compute is left out and named there, with the
reason: of a recurrent decoder (SSRU) only Marian's format is written. Before the folder appears, what is in it is
compared with the model, on --sample where it is given: the log has the figures. What is for Hugging Face is compared
where transformers (the extra [huggingface]) can be imported.
"""

import argparse
import dataclasses
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.common.command import run_command
from pipeline.common.errors import UserError
from pipeline.common.files import write_json
from pipeline.export import card, snippets
from pipeline.export.arguments import add_shared_arguments
from pipeline.export.description import describe_file, describe_model, describe_provenance
from pipeline.export.scores import Figures
from pipeline.export.vocabularies import load_vocabs
from pipeline.model import parity
from pipeline.model.config import ModelConfig
from pipeline.model.decoding import decoder_yml
from pipeline.model.formats import ctranslate2 as ctranslate2_format
from pipeline.model.formats import huggingface, lexicon, npz, vocabulary_map
from pipeline.model.formats.directory import whole_directory
from pipeline.model.transformer import Transformer
from pipeline.model.vocab import Vocab

logger = logging.getLogger(__name__)

EXAMPLE = """example:
  python -m pipeline.export.export --model final.model.npz.best-chrf.npz --quantized ctranslate2-int8 \\
    --src-vocab vocab.en.spm --trg-vocab vocab.de.spm --src en --trg de --metrics student.metrics.json \\
    --output-dir export
"""

FLOAT32, INT8, MARIAN, HUGGINGFACE = "ctranslate2/float32", "ctranslate2/int8", "marian", "huggingface"
_CHECKS = {"ctranslate2": ctranslate2_format.check_architecture, "huggingface": huggingface.check_architecture}
_USES = {
    INT8: "for CTranslate2, eight bits: the small and fast one",
    FLOAT32: "for CTranslate2, full precision",
    HUGGINGFACE: "for transformers; its README says what the plain class of transformers loses",
    MARIAN: "the trained weights, in Marian's format",
}


@dataclasses.dataclass(frozen=True)
class Export:
    """What goes into an export: a model, the directory of its quantized form, vocabularies, languages, and more."""

    model: Path
    quantized: Path | None  # None for a model that CTranslate2 cannot compute, and for no other
    vocabs: tuple[Path, Path]
    languages: tuple[str, str]
    figures: Figures = dataclasses.field(default_factory=Figures)
    shortlist: Path | None = None
    first: int = lexicon.FIRST  # pieces of the target vocabulary that every batch has
    best: int = lexicon.BEST  # candidates of a source piece
    sample: Sequence[Path] = ()  # sentences of the source language, and perhaps their translations
    config: Path | None = None


def export(parts: Export, output_dir: Path) -> None:
    """Write the folder. Raises UserError when the parts do not belong together, or a model does not translate."""
    model = npz.load(parts.model)
    unavailable = find_unavailable(model.config)
    _check_quantized(parts.quantized, unavailable.get("ctranslate2"))
    for engine, reason in unavailable.items():
        logger.warning(f"not exported for {engine}: {reason}")
    vocabs = load_vocabs(parts.vocabs, model.config)
    sample = parity.read_sample(vocabs[0], *parts.sample) if parts.sample else parity.random_sample(len(vocabs[0]))
    metadata = describe(parts, model.config, unavailable)
    with whole_directory(output_dir) as folder:
        if "ctranslate2" not in unavailable:
            _write_ctranslate2(parts, model, vocabs, folder, sample)
        _write_marian(parts, folder / MARIAN)
        if "huggingface" not in unavailable:
            more = card.more_sections(metadata, parts.figures)
            huggingface.save(model, folder / HUGGINGFACE, parts.vocabs, parts.languages, sample, more)
        files = {
            path.relative_to(folder).as_posix(): describe_file(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        sizes = {
            name: sum(entry["bytes"] for path, entry in files.items() if path.startswith(f"{name}/"))
            for name in _USES
            if (folder / name).is_dir()
        }
        metadata |= {"bytes": sizes, "files": files}
        write_json(folder / "metadata.json", metadata)
        (folder / "MODEL_CARD.md").write_text(_card(parts, metadata), encoding="utf-8")
    shown = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes.items())
    logger.info(f"exported to {output_dir}: {shown}")


def find_unavailable(config: ModelConfig) -> dict[str, str]:
    """The engines that cannot compute an architecture, each with the reason."""
    reasons = {}
    for engine, check in _CHECKS.items():
        try:
            check(config)
        except UserError as error:
            reasons[engine] = str(error)
    return reasons


def _check_quantized(quantized: Path | None, reason: str | None) -> None:
    """Whether there is a quantized model exactly where there can be one."""
    if quantized is None and reason is None:
        raise UserError(
            "--quantized is missing: CTranslate2 can compute this model, so its export has the 8-bit one, which "
            "pipeline.quantize.quantize writes"
        )
    if quantized is not None and reason is not None:
        raise UserError(f"--quantized {quantized} cannot be of this model, leave it out: {reason}")
    if quantized is not None and not (quantized / "model.bin").is_file():
        raise UserError(f"{quantized} is not a CTranslate2 model: it has no model.bin")


def _vocab_names(parts: Export) -> tuple[str, str]:
    return f"vocab.{parts.languages[0]}.spm", f"vocab.{parts.languages[1]}.spm"


def _copy_vocabs(parts: Export, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for vocab, name in zip(parts.vocabs, _vocab_names(parts), strict=True):
        shutil.copyfile(vocab, target / name)


def _write_ctranslate2(
    parts: Export, model: Transformer, vocabs: tuple[Vocab, Vocab], folder: Path, sample: parity.Sample
) -> None:
    """Both precisions, each with its vocabularies, and with the vocabulary map of a shortlist."""
    ctranslate2_format.save(model, folder / FLOAT32, parts.vocabs, sample=sample)
    _copy_quantized(parts, folder / INT8)
    for name in (FLOAT32, INT8):
        _copy_vocabs(parts, folder / name)
        if parts.shortlist:
            target = folder / name / vocabulary_map.NAME
            vocabulary_map.write(parts.shortlist, vocabs, parts.first, parts.best, target)
    found = parity.compare(
        parity.TorchEngine(model), ctranslate2_format.CTranslate2Engine(folder / INT8, vocabs), sample
    )
    logger.info(f"CTranslate2 int8 ({parts.quantized}) against torch {found.describe()}")
    parity.INT8.check(found, f"CTranslate2 int8 ({parts.quantized})")


def _copy_quantized(parts: Export, target: Path) -> None:
    target.mkdir(parents=True)
    for file in sorted(parts.quantized.iterdir() if parts.quantized else ()):
        if file.is_file() and file.suffix != ".spm":
            shutil.copyfile(file, target / file.name)


def _write_marian(parts: Export, target: Path) -> None:
    _copy_vocabs(parts, target)
    shutil.copyfile(parts.model, target / "model.npz")
    if parts.shortlist:
        shutil.copyfile(parts.shortlist, target / parts.shortlist.name)
    (target / "decoder.yml").write_text(decoder_yml("model.npz", _vocab_names(parts), beam_size=1), encoding="utf-8")


def describe(parts: Export, config: ModelConfig, unavailable: dict[str, str]) -> dict[str, Any]:
    """The content of metadata.json, but for the files."""
    sides = zip(("src", "trg"), _vocab_names(parts), config.dim_vocabs, strict=True)
    inputs = {"model": parts.model, "src-vocab": parts.vocabs[0], "trg-vocab": parts.vocabs[1]}
    if parts.quantized:
        inputs["quantized"] = parts.quantized / "model.bin"
    if parts.shortlist:
        inputs["shortlist"] = parts.shortlist
    return {
        **describe_model(parts.languages, config),
        "vocabularies": {side: {"file": name, "size": size} for side, name, size in sides},
        "shared-vocabulary": parts.vocabs[0].read_bytes() == parts.vocabs[1].read_bytes(),
        "shortlist": {"first": parts.first, "best": parts.best} if parts.shortlist else None,
        "unavailable": unavailable,
        **parts.figures.to_json(),
        "provenance": describe_provenance(inputs, parts.config),
    }


def _card(parts: Export, metadata: dict[str, Any]) -> str:
    uses = [snippets.ctranslate2_use(metadata, bool(parts.shortlist))] if INT8 in metadata["bytes"] else []
    uses += [snippets.huggingface_use(metadata)] if HUGGINGFACE in metadata["bytes"] else []
    items = [card.Item(name, size, _USES[name]) for name, size in metadata["bytes"].items()]
    return card.model_card(metadata, parts.figures, items, [*uses, snippets.marian_use(metadata)])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="model.npz")
    parser.add_argument(
        "--quantized",
        type=Path,
        help="its directory in eight bits, as quantize writes it; only a model that CTranslate2 cannot compute (SSRU) "
        "has none",
    )
    parser.add_argument("--src-vocab", type=Path, required=True, help="vocabulary of the source language (.spm)")
    parser.add_argument("--trg-vocab", type=Path, required=True, help="vocabulary of the target language (.spm)")
    parser.add_argument("--src", required=True, help="source language")
    parser.add_argument("--trg", required=True, help="target language")
    parser.add_argument("--shortlist", type=Path, help="lexical shortlist as text: lex.s2t.pruned.zst")
    add_shared_arguments(parser)
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
        figures=Figures.read(args.metrics, args.significance),
        shortlist=args.shortlist,
        first=args.shortlist_first,
        best=args.shortlist_best,
        sample=args.sample,
        config=args.config,
    )
    export(parts, args.output_dir)


if __name__ == "__main__":
    run_command(main)
