"""What a lexical shortlist costs, and what it is worth.

pipeline.align.shortlist runs once on --processors: seconds of wall and of processor time, and the peak of its memory
(proportional set size of all its processes). Then, with the --first and --best pieces that an engine takes of it:

- coverage: of the pieces of the references of a devset, the share among the candidates of their source sentence (each
  sentence is a batch of its own, which is the hardest case);
- candidates: how many of the vocabulary's pieces a sentence has, on average;
- with --compare another shortlist of the same vocabularies (of an earlier version, or of another corpus): its coverage,
  and of its links the share that this one has, and how often both agree about the best target of a source piece, both
  weighted by how often the devset uses the source piece.

  python benchmarks/shortlist.py --corpus-src corpus.en.zst --corpus-trg corpus.de.zst --src-vocab vocab.en.spm \\
    --trg-vocab vocab.de.spm --devset-src newstest2013.en --devset-trg newstest2013.de
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import psutil
import torch

from pipeline.common.corpus import read_parallel
from pipeline.common.files import read_lines
from pipeline.model.formats import lexicon
from pipeline.model.vocab import EOS_ID, Vocab


@dataclass(frozen=True)
class Devset:
    """Ids of sentences of both sides, with their ends."""

    sources: list[list[int]]
    targets: list[list[int]]


def timed(command: Sequence[str], processors: int) -> tuple[float, float, int]:
    """Seconds of wall time, seconds of processor time and peak bytes of memory of a command and its children."""
    start, peak = time.perf_counter(), 0
    before = os.times()
    process = subprocess.Popen(command, env=os.environ | {"LIMBECK_CPUS": str(processors)})
    while process.poll() is None:
        peak = max(peak, memory(process.pid))
        time.sleep(0.5)
    if process.returncode:
        sys.exit(f"exit code {process.returncode}")
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, used, peak


def memory(pid: int) -> int:
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            total += process.memory_full_info().pss
    except psutil.Error:
        pass  # it has just ended
    return total


def coverage(shortlist: lexicon.Lexicon, devset: Devset, vocabs: tuple[Vocab, Vocab]) -> tuple[float, float]:
    """Share of the target pieces that are candidates, and mean number of candidates."""
    shared = vocabs[0].all_pieces == vocabs[1].all_pieces
    covered = pieces = candidates = 0
    for source, target in zip(devset.sources, devset.targets, strict=True):
        allowed = set(shortlist.candidates(torch.tensor([source]), len(vocabs[1]), shared).tolist())
        covered += sum(piece in allowed for piece in target)
        pieces += len(target)
        candidates += len(allowed)
    return covered / pieces, candidates / len(devset.sources)


def entries(path: Path) -> dict[str, dict[str, float]]:
    """Targets of each source piece, the best first."""
    found: dict[str, dict[str, float]] = {}
    for line in read_lines(path):
        target, source, probability = line.split(" ")
        found.setdefault(source, {})[target] = float(probability)
    return found


def agreement(path: Path, other: Path, devset: Devset, src_vocab: Vocab, best: int) -> tuple[float, float]:
    """How often both have the same best target, and the share of the other's links to its `best` that are ours too."""
    ours, theirs = entries(path), entries(other)
    same = links = kept = uses = 0.0
    used = Counter(number for source in devset.sources for number in source if number != EOS_ID)
    for number, count in used.items():
        piece = src_vocab.all_pieces[number]
        if piece not in theirs:
            continue
        targets, wanted = list(ours.get(piece, {}))[:best], list(theirs[piece].items())[:best]
        uses += count
        same += count * (targets[:1] == [wanted[0][0]])
        links += count * sum(probability for _, probability in wanted)
        kept += count * sum(probability for target, probability in wanted if target in set(targets))
    return same / uses, kept / links


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ["LIMBECK_DATA"]) / "en-de" if "LIMBECK_DATA" in os.environ else None
    for flag, name in (("corpus", "train.{}.zst"), ("devset", "newstest2013.{}")):
        for side, language in (("src", "en"), ("trg", "de")):
            default = data / name.format(language) if data else None
            parser.add_argument(f"--{flag}-{side}", type=Path, default=default, required=not data)
    parser.add_argument("--src-vocab", type=Path, required=True)
    parser.add_argument("--trg-vocab", type=Path, required=True)
    parser.add_argument("--shortlist", type=Path, help="one that is there already, instead of making it")
    parser.add_argument("--compare", type=Path, help="another shortlist of the same vocabularies")
    parser.add_argument("--processors", type=int, default=2)
    parser.add_argument("--first", type=int, default=lexicon.FIRST)
    parser.add_argument("--best", type=int, default=lexicon.BEST)
    args, options = parser.parse_known_args()  # what is left goes to pipeline.align.shortlist
    vocabs = Vocab.load(args.src_vocab), Vocab.load(args.trg_vocab)
    pairs = list(read_parallel(args.devset_src, args.devset_trg))
    devset = Devset(*(vocab.encode([pair[side] for pair in pairs]) for side, vocab in enumerate(vocabs)))
    with tempfile.TemporaryDirectory() as folder:
        path = args.shortlist
        if not path:
            path = Path(folder) / "lex.s2t.pruned.zst"
            command = [sys.executable, "-m", "pipeline.align.shortlist", "--output", str(path), *options]
            for flag in ("corpus_src", "corpus_trg", "src_vocab", "trg_vocab"):
                command += [f"--{flag.replace('_', '-')}", str(getattr(args, flag))]
            wall, used, peak = timed(command, args.processors)
            load = os.getloadavg()[0]
            print(f"{wall:.1f} s, {used:.1f} CPU-s, peak {peak / 1e9:.2f} GB (load of the machine: {load:.1f})")
        for name, file in (("this", path), ("other", args.compare)):
            if file:
                loaded = lexicon.read_text(file, *vocabs, args.first, args.best)
                covered, candidates = coverage(loaded, devset, vocabs)
                print(
                    f"{name}: coverage {covered:.4f}, {candidates:.0f} candidates a sentence, {len(loaded.ids):,} ids"
                )
        if args.compare:
            same, kept = agreement(path, args.compare, devset, vocabs[0], args.best)
            print(f"same best target {same:.4f}; the other's links that are here too {kept:.4f}")


if __name__ == "__main__":
    main()
