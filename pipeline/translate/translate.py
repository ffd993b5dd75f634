"""Translate a text with a model, or with an ensemble of them.

One output line per input line; an empty line gives an empty translation. Sentences longer than max-length pieces are
cut, and the log says how many. With --nbest every sentence gets as many lines as the beam is wide:
`n ||| hypothesis ||| score`.

A model is a model.npz with its vocabularies (several are an ensemble), or a folder that pipeline.continuation.external
has written, which brings its own.
"""

import argparse
import logging
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.common.command import json_argument, run_command
from pipeline.common.errors import UserError
from pipeline.common.files import LineWriter, count_lines, read_lines, write_lines
from pipeline.common.progress import Progress
from pipeline.model.batches import length_batches
from pipeline.model.decoding import DecodingOptions, decoding_options
from pipeline.model.hardware import has_gpu
from pipeline.model.search import Hypothesis
from pipeline.model.shortlist import Shortlist
from pipeline.model.shortlist import add_flags as add_shortlist_flags
from pipeline.model.shortlist import from_flags as shortlist_from_flags
from pipeline.translate.engines import Engine, Loaded, Result, load
from pipeline.translate.nbest import format_hypothesis

logger = logging.getLogger(__name__)

EXAMPLE = """example:
  python -m pipeline.translate.translate --model final.model.npz.best-chrf.npz --src-vocab vocab.en.spm \\
    --trg-vocab vocab.de.spm --input corpus.en.zst --output translated.de.zst --options '{"beam-size": 4}'
"""

BLOCK = 20_000  # lines sorted by length together


def translate(
    models: Sequence[Path],
    vocab_paths: tuple[Sequence[Path], Sequence[Path]],
    input_path: Path,
    output_path: Path,
    nbest: bool,
    options: DecodingOptions,
    source_prefix: str = "",
    shortlist: Shortlist | None = None,
) -> int:
    """Translate a file; returns the number of sentences that were cut. Raises UserError on unfit models or options."""
    n_best = options.beam_size if nbest else 1
    model = load(models, vocab_paths, source_prefix, options, n_best, shortlist)
    total = count_lines(input_path)
    logger.info(f"translating {total:,} lines ({model.engine.description}, beam {options.beam_size})")
    progress = Progress("translating", "sentences", total)
    lines, cut = read_lines(input_path), 0
    with write_lines(output_path) as output:
        while block := list(islice(lines, BLOCK)):
            sources = model.encode(block)
            cut += sum(len(source) > model.longest for source in sources)
            sources = [source[: model.longest] for source in sources]
            hypotheses = translate_block(model.engine, sources, options, progress)
            first = output.lines // n_best
            for number, found in enumerate(hypotheses, start=first):
                _write(output, number, found, model, n_best, nbest)
    if output.lines != total * n_best:
        raise UserError(
            f"{output_path} has {output.lines} lines instead of {total * n_best}: the input changed meanwhile"
        )
    progress.finish()
    if cut:
        longest = min(options.max_length, model.longest + 1)
        logger.warning(f"{cut:,} of {total:,} sentences were longer than {longest} pieces and cut there")
    return cut


def translate_block(
    engine: Engine, sources: Sequence[list[int]], options: DecodingOptions, progress: Progress
) -> list[list[Hypothesis]]:
    """Hypotheses of every source of a block, in its order; one empty hypothesis for an empty source."""
    found: list[list[Hypothesis]] = [[Hypothesis([], 0.0)] for _ in sources]
    places = [place for place, source in enumerate(sources) if source]
    most = len(places) if has_gpu() else engine.cpu_batch
    waiting: list[tuple[list[int], Result]] = []
    for members in length_batches([len(sources[place]) + 1 for place in places], most, options.mini_batch_words):
        batch = [places[member] for member in members]
        waiting.append((batch, engine.submit([sources[place] for place in batch])))
    progress.add(len(sources) - len(places))
    for batch, result in waiting:
        for place, hypotheses in zip(batch, result(), strict=True):
            found[place] = hypotheses
        progress.add(len(batch))
    return found


def _write(
    output: LineWriter, number: int, hypotheses: list[Hypothesis], model: Loaded, n_best: int, nbest: bool
) -> None:
    texts = model.decode([hypothesis.ids for hypothesis in hypotheses])
    if not nbest:
        output.write(texts[0])
        return
    # Fewer come back when a translation was cut at its longest: the best one fills the list.
    for place in [*range(len(texts)), *[0] * (n_best - len(texts))]:
        output.write(format_hypothesis(number, texts[place], hypotheses[place].score))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        type=Path,
        nargs="+",
        action="extend",
        required=True,
        help="model.npz (several are an ensemble), or the folder of one model of another maker",
    )
    for flag, language in (("--src-vocab", "source"), ("--trg-vocab", "target")):
        parser.add_argument(
            flag,
            type=Path,
            nargs="+",
            action="extend",
            default=[],
            help=f"vocabulary of the {language} language (.spm); of an ensemble one, or one for each model",
        )
    parser.add_argument(
        "--source-prefix", default="", help="text in front of every source, such as >>deu<<, before it is segmented"
    )
    add_shortlist_flags(parser)
    parser.add_argument("--input", type=Path, required=True, help="text to translate: plain, .gz or .zst")
    parser.add_argument("--output", type=Path, required=True, help="translations")
    parser.add_argument("--nbest", action="store_true", help="write all hypotheses of the beam instead of the best")
    parser.add_argument(
        "--options", type=json_argument, default={}, metavar="JSON", help="decoding options, by Marian's names"
    )
    args = parser.parse_args(arguments)
    options: Any = args.options
    translate(
        args.model,
        (args.src_vocab, args.trg_vocab),
        args.input,
        args.output,
        args.nbest,
        decoding_options(options),
        args.source_prefix,
        shortlist_from_flags(args),
    )


if __name__ == "__main__":
    run_command(main)
