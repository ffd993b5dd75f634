"""How fast training data comes: real text read, augmented, encoded and batched, without a model that consumes it.

Of the sentence pairs of a corpus it takes --pairs, evenly, aligns their words, trains a joint vocabulary on them, and
measures:

- padding of the batches of an epoch of the whole corpus, at 16,000 and 32,000 words an update;
- target tokens and pairs per processor-second, and how many workers a GPU at --target tokens per second would need,
  for text that is encoded once, sampled (SentencePiece alpha 0.5) and sampled and augmented with the defaults;
- lines per processor-second of each augmentation, beside OpusTrainer's where LIMBECK_OPUSTRAINER names a Python that
  has it (it needs sentencepiece 0.1.99, so it lives in an environment of its own). Both get the same tokenised lines
  with alignments, in this order in one round; rates are medians of three.

  LIMBECK_DATA=corpora LIMBECK_OPUSTRAINER=opustrainer-venv/bin/python python benchmarks/data.py
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import sentencepiece

from pipeline.align.align import align_corpus
from pipeline.common.augment.augmenter import DEFAULTS, NO_AUGMENTATION, Augmentation, Augmenter
from pipeline.common.corpus import read_columns, read_parallel, write_columns
from pipeline.common.files import count_lines
from pipeline.common.words import split_words
from pipeline.train.batches import PairSizes
from pipeline.train.curriculum import Stage
from pipeline.train.data import TrainingData, open_corpora
from pipeline.train.encoding import Encoder
from pipeline.train.mixture import DataPosition
from pipeline.train.options import TrainingOptions
from pipeline.train.shuffle import Row
from pipeline.train.workers import EncodingWorkers
from pipeline.vocab.build import train

LANGUAGES = ("en", "de")
# Every line, and every tenth, as OpusTrainer's own options; 0.05 of the aligned words are far more than are tagged.
MODIFIERS = {
    "upper-case": ("UpperCaseModifier", "surface", 1.0),
    "title-case": ("TitleCaseModifier", "surface", 1.0),
    "remove-end-punct": ("RemoveEndPunctuationModifier", "punctuation", 1.0),
    "typos": ("TypoModifier", "typos", 1.0),
    "noise": ("NoiseModifier", "noise", 0.1),
    "tags": ("PlaceholderTagModifier", "placeholders", 0.005),
}
OPUSTRAINER = """
import importlib, json, random, sys, time
lines = [line.rstrip("\\n") for line in open(sys.argv[1], encoding="utf-8")]
vocab = sys.argv[3]
for name, (cls, module, chance) in json.loads(sys.argv[2]).items():
    options = {"augment": 1, "tag": 0, "spm_vocab_src": vocab, "spm_vocab_trg": vocab} if name == "tags" else {}
    modifier = getattr(importlib.import_module("opustrainer.modifiers." + module), cls)(chance, **options)
    random.seed(1)
    begun = time.process_time()
    for start in range(0, len(lines), 128):
        list(modifier(lines[start : start + 128]))
    print(json.dumps([name, len(lines) / (time.process_time() - begun)]))
"""


def processor_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def prepare(paths: tuple[Path, Path], pairs: int, size: int, folder: Path) -> tuple[tuple[Path, ...], Path]:
    """Some pairs of a corpus, evenly taken, with alignments, and a joint vocabulary."""
    every = max(count_lines(paths[0]) // pairs, 1)
    corpus = (folder / "corpus.en.zst", folder / "corpus.de.zst", folder / "corpus.aln.zst")
    with write_columns(*corpus[:2]) as writer:
        for row in islice(read_parallel(*paths), 0, every * pairs, every):
            writer.write(*row)
    align_corpus((corpus[0], corpus[1]), corpus[2])
    vocab = folder / "vocab.spm"
    vocab.write_bytes(train((text for row in read_parallel(*corpus[:2]) for text in row), size, "nmt_nfkc", ()))
    return corpus, vocab


def stream(
    corpus: tuple[Path, ...], vocab: Path, folder: Path, augmentation: Augmentation, workers: int, **options: object
) -> tuple[TrainingData, float]:
    """Training data, and the processor-seconds that opening it took."""
    chosen = TrainingOptions(**{"guided_alignment": True, **options})  # type: ignore[arg-type]
    processor = sentencepiece.SentencePieceProcessor(model_file=str(vocab))
    encoder = Encoder(
        (processor, processor),
        chosen.sentencepiece_alphas,
        chosen.max_length,
        aligned=chosen.guided_alignment,
        augmenter=Augmenter(augmentation, LANGUAGES),
    )
    encoding = EncodingWorkers(encoder, workers)
    begun = processor_seconds()
    corpora = open_corpora({"corpus": corpus}, folder, 1, encoding)
    encoding.close()
    return TrainingData(corpora, [Stage({"corpus": 1.0})], encoding, chosen), processor_seconds() - begun


def measure(data: TrainingData, opening: float, name: str, target: int) -> None:
    """Print what one epoch delivers."""
    sizes, pairs = PairSizes(), 0
    processors, clock = processor_seconds(), time.monotonic()
    updates = data.updates(DataPosition())
    for update in updates:
        sizes += update.sizes
        pairs += sum(len(batch.src) for batch in update.batches)
        if update.epochs >= 1:
            break
    clock = time.monotonic() - clock
    updates.close()
    processors = processor_seconds() - processors
    data.remove_copies()
    rate = sizes.target_tokens / processors
    print(
        f"{name:34} {rate:10,.0f} target tokens and {pairs / processors:8,.0f} pairs per processor-second; "
        f"{sizes.target_tokens / clock:10,.0f} tokens per second; opening: {opening:5.1f} processor-seconds; "
        f"{target / rate:5.1f} processors feed {target:,}"
    )


def padding(corpus: tuple[Path, Path], vocab: Path, folder: Path, words: int, delay: int) -> None:
    data, _ = stream(
        corpus[:2], vocab, folder, NO_AUGMENTATION, 0, guided_alignment=False, mini_batch_words=words,
        optimizer_delay=delay,
    )  # fmt: skip
    sizes, count = PairSizes(), 0
    for update in data.updates(DataPosition()):
        sizes, count = sizes + update.sizes, count + 1
        if update.epochs >= 1:
            break
    fill = sizes.padded / 2 / count / words
    print(f"padding at {words:,} words in {delay}: {1 - sizes.real / sizes.padded:.1%} of positions; {fill:.0%} filled")


def compare(rows: list[Row], vocab: Path, folder: Path) -> None:
    """Rates of each augmentation, ours and OpusTrainer's."""
    tokenised: list[Row] = []
    for row in rows:
        words = [split_words(text) for text in row[:2]]
        if row[2] and all(words):
            tokenised.append((" ".join(words[0]), " ".join(words[1]), row[2]))
    file = folder / "lines.tsv"
    file.write_text("".join("\t".join(row) + "\n" for row in tokenised), encoding="utf-8")
    python = os.environ.get("LIMBECK_OPUSTRAINER")
    rates: dict[tuple[str, str], list[float]] = {}
    for _ in range(3):
        for name, (_, _, chance) in MODIFIERS.items():
            augmenter = Augmenter(Augmentation(**{name.replace("-", "_"): chance}), LANGUAGES)
            begun = time.process_time()
            augmenter.augment(tokenised, random.Random(1))
            rates.setdefault((name, "ours"), []).append(len(tokenised) / (time.process_time() - begun))
        if python:
            command = [python, "-c", OPUSTRAINER, str(file), json.dumps(MODIFIERS), str(vocab)]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            for name, rate in map(json.loads, printed.splitlines()):
                rates.setdefault((name, "theirs"), []).append(rate)
    for name, (_, _, chance) in MODIFIERS.items():
        mine = statistics.median(rates[name, "ours"])
        theirs = f", {mine / statistics.median(rates[name, 'theirs']):5.1f} times OpusTrainer" if python else ""
        print(f"{name:18} at {chance:<6g} {mine:10,.0f} lines per processor-second{theirs}")
    augmenter = Augmenter(DEFAULTS, LANGUAGES)
    begun = time.process_time()
    augmenter.augment(tokenised, random.Random(1))
    rate = len(tokenised) / (time.process_time() - begun)
    print(f"{'all, at the defaults':28} {rate:10,.0f} lines per processor-second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("LIMBECK_DATA")
    given = [Path(data, "en-de", f"train.{language}.zst") for language in LANGUAGES] if data else None
    parser.add_argument(
        "--corpus", nargs=2, type=Path, default=given, help="two sides (default: those of LIMBECK_DATA)"
    )
    parser.add_argument("--pairs", type=int, default=100_000, help="(default: 100,000)")
    parser.add_argument("--vocab-size", type=int, default=32_000, help="(default: 32,000)")
    parser.add_argument("--workers", type=int, default=1, help="processes that encode (default: 1)")
    parser.add_argument("--target", type=int, default=500_000, help="tokens per second of the GPU (default: 500,000)")
    args = parser.parse_args()
    if not args.corpus:
        sys.exit("error: give --corpus, or set LIMBECK_DATA")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus, vocab = prepare(tuple(args.corpus), args.pairs, args.vocab_size, folder)
        for words, delay in ((16_000, 1), (16_000, 2), (32_000, 1), (32_000, 4)):
            padding(tuple(args.corpus), vocab, folder, words, delay)
        alphas = (0.5, 0.5)
        for label, augmentation, options in (
            ("encoded once", NO_AUGMENTATION, {}),
            ("sampled", NO_AUGMENTATION, {"sentencepiece_alphas": alphas}),
            ("augmented", DEFAULTS, {}),
            ("sampled and augmented", DEFAULTS, {"sentencepiece_alphas": alphas}),
            ("sampled, not aligned", NO_AUGMENTATION, {"sentencepiece_alphas": alphas, "guided_alignment": False}),
        ):
            for workers in (0, args.workers):
                made, opening = stream(corpus, vocab, folder, augmentation, workers, **options)
                measure(made, opening, f"{label}, {workers} workers", args.target)
        compare(list(islice(read_columns(*corpus), 20_000)), vocab, folder)


if __name__ == "__main__":
    main()
