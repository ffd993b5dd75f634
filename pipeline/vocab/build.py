"""Build the SentencePiece vocabularies of a language pair from its training corpus.

A unigram model (Kudo, 2018) with the ids that models here expect: 0 ends a sentence, 1 is unknown, and there is neither
a start nor a padding piece. Characters outside the vocabulary are spelt in bytes and digits stand alone. One joint
model is trained on both sides and written to both names; with --split each side gets a model of its own.
"""

import argparse
import logging
import os
import random
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from pipeline.common.command import run_command
from pipeline.common.corpus import read_parallel
from pipeline.common.errors import UserError
from pipeline.common.files import count_lines, read_lines
from pipeline.common.progress import Progress
from pipeline.vocab.normalisation import NORM_RULES, check_norm_rule, nfc_table

logger = logging.getLogger(__name__)

EXAMPLE = """example:
  python -m pipeline.vocab.build --src en --trg de --corpus-src corpus.en.zst --corpus-trg corpus.de.zst \\
    --vocab-size 32000 --sample-size 10000000 --output-src vocab.en.spm --output-trg vocab.de.spm
"""

# Pieces that no text produces: room for tags which a later fine-tuning may give a meaning.
USER_SYMBOLS = (
    *("__source__", "__target__", "__done__", "__start__", "__end__", "__sep__"),
    *(f"__misc{number}__" for number in range(10)),
)
# SentencePiece sums its counts per thread, so the scores depend on the number of threads: a fixed number gives the same
# model on every machine, whatever its number of cores.
THREADS = 16
MULTIPLE = 8  # matrix kernels work in blocks of eight


def check_size(size: int) -> int:
    """Return a usable vocabulary size. Raises UserError, with the nearest one, when it is not a multiple of 8."""
    if size > 0 and size % MULTIPLE == 0:
        return size
    nearest = max(MULTIPLE, round(size / MULTIPLE) * MULTIPLE)
    raise UserError(f"a vocabulary of {size} pieces: the size must be a multiple of {MULTIPLE}, such as {nearest}")


def sample_lines(lines: Iterable[str], total: int, size: int | None, seed: int) -> Iterator[str]:
    """Yield `size` of `total` lines in their order, every choice equally likely (selection sampling: Knuth, The Art of
    Computer Programming, volume 2, 3.4.2, algorithm S); all of them when `size` is None or no smaller than `total`.

    The places chosen depend on the numbers only, so both sides of a corpus give the same pairs.
    """
    if size is None or size >= total:
        yield from lines
        return
    draw = random.Random(seed)
    needed = size
    for left, line in zip(range(total, 0, -1), lines, strict=True):
        if draw.random() * left < needed:
            needed -= 1
            yield line


def train(lines: Iterable[str], vocab_size: int, norm_rule: str, user_symbols: Sequence[str]) -> bytes:
    """Train a vocabulary of exactly `vocab_size` pieces; the same lines give the same bytes.

    Raises UserError when the text has too few distinct words for that size, or more characters than the size has room
    for, with the size that is possible.
    """
    model = BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        normalisation: dict[str, Any]
        if norm_rule == "nfc":
            table = Path(folder) / "nfc.tsv"
            table.write_text(nfc_table(), encoding="utf-8")
            normalisation = {"normalization_rule_tsv": str(table)}
        else:
            normalisation = {"normalization_rule_name": norm_rule}
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=model,
                model_type="unigram",
                vocab_size=vocab_size,
                hard_vocab_limit=True,
                eos_id=0,
                unk_id=1,
                bos_id=-1,
                pad_id=-1,
                byte_fallback=True,
                split_digits=True,
                user_defined_symbols=list(user_symbols),
                num_threads=THREADS,
                minloglevel=1,  # warnings: otherwise a line for each byte piece
                **normalisation,
            )
        except RuntimeError as error:
            raise _explain(str(error), vocab_size) from error
    return _name_rule(model.getvalue(), norm_rule)


def _name_rule(model: bytes, norm_rule: str) -> bytes:
    """A model trained with a rule table keeps the table's path: put the rule's name in its place."""
    if norm_rule != "nfc":
        return model
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    proto.normalizer_spec.name = norm_rule
    proto.normalizer_spec.ClearField("normalization_rule_tsv")
    return bytes(proto.SerializeToString(deterministic=True))


def _explain(message: str, vocab_size: int) -> Exception:
    """SentencePiece's complaint about a corpus as a sentence that says which size is possible."""
    if found := re.search(r"Vocabulary size too high .* value <= (\d+)", message):
        largest = int(found[1]) // MULTIPLE * MULTIPLE
        return UserError(
            f"the corpus is too small for a vocabulary of {vocab_size} pieces: it gives at most {largest}; "
            "ask for a smaller vocabulary, or for a larger corpus or sample"
        )
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        smallest = -(-int(found[1]) // MULTIPLE) * MULTIPLE
        return UserError(
            f"a vocabulary of {vocab_size} pieces is too small: bytes, symbols and the corpus's characters alone fill "
            f"{found[1]}, so ask for {smallest} at the least"
        )
    if "!sentences_.empty()" in message:
        return UserError("the corpus to build a vocabulary from holds no text")
    return RuntimeError(message)


def build(
    corpus: tuple[Path, Path],
    outputs: tuple[Path, Path],
    vocab_size: int,
    sample_size: int | None = None,
    norm_rule: str = "nmt_nfkc",
    split: bool = False,
    user_symbols: Sequence[str] = USER_SYMBOLS,
    seed: int = 1,
) -> None:
    """Train on a corpus and write both vocabularies.

    `sample_size` counts lines: of both sides together for a joint vocabulary, of each side (the same pairs) for two.
    Raises UserError on a bad size or rule, sides of unequal length, and a corpus too small for the size.
    """
    check_size(vocab_size)
    check_norm_rule(norm_rule)
    if split and outputs[0] == outputs[1]:
        raise UserError(f"two vocabularies cannot both be written to {outputs[0]}")
    src_lines, trg_lines = count_lines(corpus[0]), count_lines(corpus[1])
    if src_lines != trg_lines:
        raise UserError(f"{corpus[0]} has {src_lines} lines, but {corpus[1]} has {trg_lines}")

    def trained(lines: Iterable[str], total: int) -> bytes:
        chosen = sample_lines(lines, total, sample_size, seed)
        return train(_counted(chosen, min(total, sample_size or total)), vocab_size, norm_rule, user_symbols)

    if split:
        models = [trained(read_lines(path), src_lines) for path in corpus]
    else:
        models = [trained(chain.from_iterable(read_parallel(*corpus)), 2 * src_lines)] * 2
    for path, model in zip(outputs, models, strict=True):
        _write(path, model)


def _counted(lines: Iterator[str], total: int) -> Iterator[str]:
    progress = Progress("reading text for the vocabulary", "lines", total)
    for line in lines:
        yield line
        progress.add()
    progress.finish()
    logger.info("training the vocabulary (SentencePiece does not say how far it is)")


def _write(path: Path, model: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(model)
    temporary.replace(path)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--src", required=True, help="source language")
    parser.add_argument("--trg", required=True, help="target language")
    parser.add_argument("--corpus-src", type=Path, required=True, help="source side: plain, .gz or .zst")
    parser.add_argument("--corpus-trg", type=Path, required=True, help="target side, line by line with the source")
    parser.add_argument("--vocab-size", type=int, required=True, help="pieces of each vocabulary, a multiple of 8")
    parser.add_argument(
        "--sample-size",
        type=int,
        help="train on so many lines drawn at random: of both sides together, with --split of each (default: all)",
    )
    parser.add_argument("--norm-rule", default="nmt_nfkc", help=f"{', '.join(NORM_RULES)} (default: %(default)s)")
    parser.add_argument("--split", action="store_true", help="one vocabulary for each side instead of a joint one")
    parser.add_argument(
        "--user-symbols",
        nargs="*",
        default=USER_SYMBOLS,
        metavar="PIECE",
        help="pieces kept for tags (default: 16 such as __source__ and __misc0__); without a value, none",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--output-src", type=Path, required=True, help="vocabulary of the source side (.spm)")
    parser.add_argument("--output-trg", type=Path, required=True, help="vocabulary of the target side (.spm)")
    args = parser.parse_args(arguments)
    build(
        (args.corpus_src, args.corpus_trg),
        (args.output_src, args.output_trg),
        args.vocab_size,
        args.sample_size,
        args.norm_rule,
        args.split,
        args.user_symbols,
        args.seed,
    )
    kind = "two vocabularies" if args.split else "a joint vocabulary"
    logger.info(f"{args.src}-{args.trg}: {kind} of {args.vocab_size:,} pieces")


if __name__ == "__main__":
    run_command(main)
