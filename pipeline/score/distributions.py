"""Store what a teacher thinks of every target piece of a corpus: the k likeliest pieces and their log-probabilities.

The teacher reads the targets of the corpus (it is not asked to translate), so that a student can later be trained on
its distributions without it. One line per pair, see pipeline/model/distributions.py; a pair longer than --max-length
pieces, or empty on one side, has an empty line, and the log says how many. Several models are an ensemble, whose
log-probabilities are averaged.
"""

import argparse
import logging
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.common.command import run_command
from pipeline.common.corpus import read_parallel
from pipeline.common.errors import UserError
from pipeline.common.files import count_lines, write_lines
from pipeline.common.progress import Progress
from pipeline.model.batches import length_batches
from pipeline.model.distributions import format_distributions
from pipeline.model.formats import npz
from pipeline.model.hardware import cpu_threads
from pipeline.model.transformer import Transformer
from pipeline.model.vocab import Vocab

logger = logging.getLogger(__name__)

EXAMPLE = """example:
  python -m pipeline.score.distributions --model final.model.npz.best-chrf.npz --src-vocab vocab.en.spm \\
    --trg-vocab vocab.de.spm --corpus-src corpus.en.zst --corpus-trg corpus.de.zst --top-k 8 \\
    --output distributions.zst
"""

BLOCK = 10_000  # pairs sorted by length together
CPU_WORDS, GPU_WORDS = 2_000, 16_000  # positions of a batch, with padding
CHUNK_LOGITS = 1 << 24

Pair = tuple[list[int], list[int]]


def store_distributions(
    models: Sequence[Path],
    vocab_paths: tuple[Path, Path],
    corpus: tuple[Path, Path],
    count: int,
    output_path: Path,
    max_length: int = 200,
) -> int:
    """Write the `count` likeliest pieces for every target position of a corpus; returns how many pairs have none.

    Raises UserError on sides of unequal length, and when the vocabularies do not fit the models.
    """
    vocabs = Vocab.load(vocab_paths[0]), Vocab.load(vocab_paths[1])
    if not 1 <= count < len(vocabs[1]):
        raise UserError(f"--top-k {count}: from 1 to {len(vocabs[1]) - 1}, one less than the target pieces")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(cpu_threads())
    torch.set_float32_matmul_precision("high")
    teachers = [_load(path, vocabs, device) for path in models]
    progress = Progress("storing distributions", "pairs", count_lines(corpus[0]))
    rows, without = read_parallel(*corpus), 0
    with write_lines(output_path) as output:
        while block := list(islice(rows, BLOCK)):
            sides = [vocab.encode([row[side] for row in block]) for side, vocab in enumerate(vocabs)]
            lines = [""] * len(block)
            pairs: list[Pair] = list(zip(*sides, strict=True))
            # The end of sentence is an id of its own: a side of one id is empty.
            places = [place for place, pair in enumerate(pairs) if min(map(len, pair)) > 1 and _fits(pair, max_length)]
            without += len(block) - len(places)
            progress.add(len(block) - len(places))
            words = GPU_WORDS if device.type == "cuda" else CPU_WORDS
            for members in length_batches([max(map(len, pairs[place])) for place in places], len(places), words):
                batch = [places[member] for member in members]
                for place, line in zip(batch, _lines(teachers, [pairs[p] for p in batch], count, device), strict=True):
                    lines[place] = line
                progress.add(len(batch))
            for line in lines:
                output.write(line)
    progress.finish()
    if without:
        logger.warning(
            f"{without:,} of {progress.done:,} pairs have no distributions: a side is empty or longer than "
            f"{max_length} pieces"
        )
    return without


def _fits(pair: Pair, max_length: int) -> bool:
    return max(map(len, pair)) <= max_length + 1


def _load(path: Path, vocabs: tuple[Vocab, Vocab], device: torch.device) -> Transformer:
    model = npz.load(path)
    sizes = (len(vocabs[0]), len(vocabs[1]))
    if model.config.dim_vocabs != sizes:
        raise UserError(
            f"{path} has {model.config.dim_vocabs[0]} source and {model.config.dim_vocabs[1]} target pieces, but the "
            f"vocabularies have {sizes[0]} and {sizes[1]}: they belong to another model"
        )
    return model.to(device)


@torch.no_grad()
def _lines(models: Sequence[Transformer], pairs: Sequence[Pair], count: int, device: torch.device) -> Iterator[str]:
    """The lines of a batch of encoded pairs."""
    (src, src_mask), (trg, trg_mask) = (_padded([pair[side] for pair in pairs], device) for side in (0, 1))
    states = [model.decode(trg, model.encode(src, src_mask), src_mask)[0][trg_mask] for model in models]
    ids: list[Tensor] = []
    log_probs: list[Tensor] = []
    # The logits of a whole batch would be many times larger than all else.
    chunk = max(1, CHUNK_LOGITS // models[0].config.dim_vocabs[1])
    for parts in zip(*(torch.split(each, chunk) for each in states), strict=True):
        scores = [model.logits(part).log_softmax(-1) for model, part in zip(models, parts, strict=True)]
        mean = scores[0] if len(scores) == 1 else torch.stack(scores).mean(0).log_softmax(-1)
        best = mean.topk(count, dim=-1)
        ids.append(best.indices.to("cpu", torch.int32))
        log_probs.append(best.values.cpu())
    yield from _split(torch.cat(ids).numpy(), torch.cat(log_probs).numpy(), [len(pair[1]) for pair in pairs])


def _split(ids: NDArray[np.int32], log_probs: NDArray[np.float32], lengths: Sequence[int]) -> Iterator[str]:
    start = 0
    for length in lengths:
        yield format_distributions(ids[start : start + length], log_probs[start : start + length])
        start += length


def _padded(sentences: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids [B, T] and mask (True: real) of sentences."""
    lengths = torch.tensor([len(sentence) for sentence in sentences])
    ids = torch.zeros(len(sentences), int(lengths.max()), dtype=torch.long)
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    ids[mask] = torch.tensor([number for sentence in sentences for number in sentence])
    return ids.to(device), mask.to(device)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, nargs="+", action="extend", help="model.npz; several are an ensemble")
    add("--src-vocab", type=Path, required=True, help="vocabulary of the source language (.spm)")
    add("--trg-vocab", type=Path, required=True, help="vocabulary of the target language (.spm)")
    add("--corpus-src", type=Path, required=True, help="source side: plain, .gz or .zst")
    add("--corpus-trg", type=Path, required=True, help="target side, line by line with the source")
    add("--top-k", type=int, default=8, help="pieces to store for each position (default: 8)")
    add("--max-length", type=int, default=200, help="pieces of a side at most (default: 200)")
    add("--output", type=Path, required=True, help="the distributions, one line per pair")
    args = parser.parse_args(arguments)
    store_distributions(
        args.model,
        (args.src_vocab, args.trg_vocab),
        (args.corpus_src, args.corpus_trg),
        args.top_k,
        args.output,
        args.max_length,
    )


if __name__ == "__main__":
    run_command(main)
