"""Quantize a model to eight bits: a CTranslate2 model directory, with its vocabularies beside it.

With --sample the log says how many sentences the quantized model translates exactly as the float32 model does; the
figure also goes into quantization.json in the directory.
"""

import argparse
import logging
import shutil
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.common.command import run_command
from pipeline.common.errors import UserError
from pipeline.common.files import read_lines, write_json
from pipeline.model.formats import ctranslate2 as ctranslate2_format
from pipeline.model.formats import npz
from pipeline.model.formats.directory import whole_directory
from pipeline.model.hardware import cpu_threads
from pipeline.model.search import longest_translation
from pipeline.model.vocab import Vocab

logger = logging.getLogger(__name__)

EXAMPLE = """example:
  python -m pipeline.quantize.quantize --model final.model.npz.best-chrf.npz --src-vocab vocab.en.spm \\
    --trg-vocab vocab.de.spm --sample devset.en.zst --output-dir ctranslate2-int8
"""

SAMPLE = 300  # sentences
MAX_LENGTH = 200  # pieces of a sample sentence
BATCH = 16


def quantize(model: Path, vocab_paths: tuple[Path, Path], sample: Path | None, output_dir: Path) -> None:
    """Write the directory. Raises UserError when the vocabularies do not fit, or CTranslate2 lacks the architecture."""
    if vocab_paths[0].name == vocab_paths[1].name and vocab_paths[0].read_bytes() != vocab_paths[1].read_bytes():
        raise UserError(f"the two vocabularies are both named {vocab_paths[0].name}: give them different names")
    with whole_directory(output_dir) as folder:
        ctranslate2_format.save(npz.load(model), folder, vocab_paths, "int8")
        for path in vocab_paths:
            shutil.copyfile(path, folder / path.name)
        if sample:
            write_json(folder / "quantization.json", compare(model, vocab_paths, folder, sample))
        else:
            logger.info("no --sample: the quantized model is not compared with the float32 one")
        size = (folder / "model.bin").stat().st_size
        logger.info(f"quantized {model.stat().st_size / 1e6:.1f} MB to {size / 1e6:.1f} MB")


def compare(model: Path, vocab_paths: tuple[Path, Path], quantized: Path, sample: Path) -> dict[str, Any]:
    """How many of a sample's sentences both precisions translate alike, greedily."""
    lines = list(islice((line for line in read_lines(sample) if line.strip()), SAMPLE))
    sources = [pieces[:MAX_LENGTH] for pieces in Vocab.load(vocab_paths[0]).pieces(lines) if pieces]
    if not sources:
        raise UserError(f"{sample} holds no text to compare the quantized model on")
    with tempfile.TemporaryDirectory(prefix="ctranslate2-") as folder:
        directory = Path(folder) / "model"
        ctranslate2_format.save(npz.load(model), directory, vocab_paths)
        exact = _translate(directory, sources)
    identical = sum(one == other for one, other in zip(exact, _translate(quantized, sources), strict=True))
    report = logger.info if identical > len(sources) / 2 else logger.warning
    report(
        f"{identical} of {len(sources)} sentences ({100 * identical / len(sources):.0f} %) "
        "are translated exactly as in float32"
    )
    return {"sentences": len(sources), "identical-to-float32": identical}


def _translate(directory: Path, sources: Sequence[list[str]]) -> list[list[str]]:
    translator = ctranslate2_format.load(directory, cpu_threads())
    results = translator.translate_batch(
        sources,
        max_batch_size=BATCH,
        beam_size=1,
        max_input_length=0,
        max_decoding_length=longest_translation(MAX_LENGTH),
        disable_unk=True,
    )
    return [result.hypotheses[0] for result in results]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="model.npz")
    parser.add_argument("--src-vocab", type=Path, required=True, help="vocabulary of the source language (.spm)")
    parser.add_argument("--trg-vocab", type=Path, required=True, help="vocabulary of the target language (.spm)")
    parser.add_argument("--sample", type=Path, help="source sentences to compare int8 with float32 on")
    parser.add_argument("--output-dir", type=Path, required=True, help="CTranslate2 model directory to write")
    args = parser.parse_args(arguments)
    quantize(args.model, (args.src_vocab, args.trg_vocab), args.sample, args.output_dir)


if __name__ == "__main__":
    run_command(main)
