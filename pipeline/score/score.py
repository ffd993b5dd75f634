"""Score sentence pairs with a model: log p(target | source), divided by the target's length in pieces.

One number per line. The length counts the end of sentence; sentences longer than 250 pieces are cut there, and the log
says how many. A pair with an empty side scores -inf.
"""

import argparse
import logging
import math
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.common.command import run_command
from pipeline.common.corpus import read_parallel
from pipeline.common.files import count_lines, write_lines
from pipeline.common.progress import Progress
from pipeline.model.batches import length_batches
from pipeline.model.formats import ctranslate2 as ctranslate2_format
from pipeline.model.formats import npz
from pipeline.model.hardware import cpu_threads, has_gpu
from pipeline.model.vocab import Vocab, check_tag, with_prefix

logger = logging.getLogger(__name__)

EXAMPLE = """example:
  python -m pipeline.score.score --model final.model.npz.best-chrf.npz --src-vocab vocab.de.spm \\
    --trg-vocab vocab.en.spm --corpus-src corpus.de.zst --corpus-trg corpus.en.zst --output scores.zst
"""

BLOCK = 20_000  # pairs sorted by length together
MAX_LENGTH = 250  # pieces with the end of sentence
CPU_BATCH, GPU_WORDS = 32, 16_000  # sentences; target pieces with padding

Pairs = Sequence[tuple[list[str], list[str]]]


def score(
    model: Path, vocab_paths: tuple[Path, Path], corpus: tuple[Path, Path], output_path: Path, source_prefix: str = ""
) -> int:
    """Write the scores of a corpus; returns the number of pairs that were cut.

    Raises UserError on sides of unequal length, and when the vocabularies do not fit the model.
    """
    vocabs = Vocab.load(vocab_paths[0]), Vocab.load(vocab_paths[1])
    check_tag(source_prefix, vocabs[0].all_pieces, str(vocab_paths[0]))
    translator = _load(model, vocab_paths)
    progress = Progress("scoring", "pairs", count_lines(corpus[0]))
    rows, cut = read_parallel(*corpus), 0
    with write_lines(output_path) as output:
        while block := list(islice(rows, BLOCK)):
            sources = vocabs[0].pieces(with_prefix([source for source, _ in block], source_prefix))
            pairs = list(zip(sources, vocabs[1].pieces([target for _, target in block]), strict=True))
            cut += sum(max(len(src), len(trg)) >= MAX_LENGTH for src, trg in pairs)
            cropped = [(src[: MAX_LENGTH - 1], trg[: MAX_LENGTH - 1]) for src, trg in pairs]
            for value in _score_block(translator, cropped, progress):
                output.write(f"{value:.6f}")
    progress.finish()
    if cut:
        logger.warning(
            f"{cut:,} of {progress.done:,} pairs had a side longer than {MAX_LENGTH} pieces, scored up to there"
        )
    return cut


def _load(model: Path, vocab_paths: tuple[Path, Path]) -> Any:
    threads, device = (1, "cuda") if has_gpu() else (cpu_threads(), "cpu")
    with tempfile.TemporaryDirectory(prefix="ctranslate2-") as folder:
        directory = Path(folder) / "model"
        ctranslate2_format.save(npz.load(model), directory, vocab_paths)
        return ctranslate2_format.load(directory, threads, device=device)


def _score_block(translator: Any, pairs: Pairs, progress: Progress) -> Iterator[float]:
    """Scores of a block's pairs, in their order."""
    scores = [-math.inf] * len(pairs)
    places = [place for place, (src, trg) in enumerate(pairs) if src and trg]
    lengths = [max(len(pairs[place][0]), len(pairs[place][1])) + 1 for place in places]
    limits = (len(places), GPU_WORDS) if has_gpu() else (CPU_BATCH, CPU_BATCH * MAX_LENGTH)
    waiting = []
    for members in length_batches(lengths, *limits):
        batch = [places[member] for member in members]
        src, trg = zip(*(pairs[place] for place in batch), strict=True)
        waiting.append((batch, translator.score_batch(src, trg, max_input_length=0, asynchronous=True)))
    progress.add(len(pairs) - len(places))
    for batch, handles in waiting:
        for place, handle in zip(batch, handles, strict=True):
            log_probs = handle.result().log_probs
            scores[place] = math.fsum(log_probs) / len(log_probs)
        progress.add(len(batch))
    yield from scores


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="model.npz that translates source into target")
    parser.add_argument("--src-vocab", type=Path, required=True, help="vocabulary of the source language (.spm)")
    parser.add_argument("--trg-vocab", type=Path, required=True, help="vocabulary of the target language (.spm)")
    parser.add_argument("--corpus-src", type=Path, required=True, help="source side: plain, .gz or .zst")
    parser.add_argument("--corpus-trg", type=Path, required=True, help="target side, line by line with the source")
    parser.add_argument(
        "--source-prefix", default="", help="text in front of every source, such as >>deu<<, before it is segmented"
    )
    parser.add_argument("--output", type=Path, required=True, help="one score per line; higher is better")
    args = parser.parse_args(arguments)
    score(
        args.model,
        (args.src_vocab, args.trg_vocab),
        (args.corpus_src, args.corpus_trg),
        args.output,
        args.source_prefix,
    )


if __name__ == "__main__":
    run_command(main)
