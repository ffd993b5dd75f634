"""Speed of pipeline.align on one core, and how far its links agree with those of other aligners.

Of the sentence pairs of a corpus it takes the first --pairs. All aligners see the same lower-cased words. eflomal and
fast_align (in the packaging of systran-align) are run where they are named; agreement is the F1 score between two sets
of links, all symmetrised by grow-diag-final-and (systran-align does that by itself). CPU time counts everything from
reading the files to writing the alignments.

  python benchmarks/align.py --corpus-src corpus.en.zst --corpus-trg corpus.de.zst \\
    --eflomal venv/bin/eflomal-align --systran-align venv/bin/python
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np

from pipeline.align.symmetrize import grow_diag_final_and
from pipeline.common.corpus import read_parallel, write_columns
from pipeline.common.files import read_lines
from pipeline.common.words import split_words

LinkSet = set[tuple[int, int, int]]  # sentence pair, source position, target position

SYSTRAN_ALIGN = """
import json, sys, systran_align
text, forward, backward, output, pairs = sys.argv[1:]
systran_align.generate_alignment_probabilities(
    text, forward, backward, favor_diagonal=True, optimize_tension=True, variational_bayes=True)
aligner = systran_align.Aligner(forward, backward)
with open(output, "w") as file:
    for line, _ in zip(open(text), range(int(pairs))):
        src, trg = line.rstrip("\\n").split(" ||| ")
        file.write(json.dumps(aligner.align(src.split(), trg.split())["alignments"]) + "\\n")
"""


def timed(command: Sequence[str], folder: Path) -> float:
    """CPU seconds (user and system) of a command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def pharaoh(path: Path) -> LinkSet:
    links = ((number, link.split("-")) for number, line in enumerate(read_lines(path)) for link in line.split())
    return {(number, int(src), int(trg)) for number, (src, trg) in links}


def ours(folder: Path, options: Sequence[str]) -> tuple[float, LinkSet]:
    output = folder / "ours.aln.zst"
    command = [sys.executable, "-m", "pipeline.align.align", "--output", str(output), *options]
    seconds = timed(
        [*command, "--corpus-src", str(folder / "src.zst"), "--corpus-trg", str(folder / "trg.zst")], folder
    )
    return seconds, pharaoh(output)


def eflomal(folder: Path, program: Path) -> tuple[float, LinkSet]:
    files = [str(folder / name) for name in ("both.txt", "eflomal.fwd", "eflomal.rev")]
    seconds = timed(
        [
            *("env", f"PATH={program.parent}:{os.environ['PATH']}", str(program), "--overwrite"),
            *("-i", files[0], "-f", files[1], "-r", files[2]),
        ],
        folder,
    )
    lengths = np.array(
        [[len(side.split()) for side in line.split(" ||| ")] for line in read_lines(folder / "both.txt")]
    )
    starts = np.cumsum(lengths, 0) - lengths
    sides = [np.full(lengths[:, side].sum(), -1, np.int64) for side in (0, 1)]
    for number, src, trg in pharaoh(Path(files[1])):
        sides[1][starts[number, 1] + trg] = src
    for number, src, trg in pharaoh(Path(files[2])):
        sides[0][starts[number, 0] + src] = trg
    links = grow_diag_final_and(sides[1], sides[0], lengths[:, 0], lengths[:, 1])
    return seconds, set(zip(links.pair.tolist(), links.src.tolist(), links.trg.tolist(), strict=True))


def fast_align(folder: Path, python: Path, pairs: int) -> tuple[float, LinkSet]:
    output = folder / "fast_align.json"
    seconds = timed(
        [str(python), "-c", SYSTRAN_ALIGN, "both.txt", "fwd.probs", "rev.probs", str(output), str(pairs)], folder
    )
    lines = map(json.loads, read_lines(output))
    return seconds, {(number, src, trg) for number, links in enumerate(lines) for src, trg in links}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("LIMBECK_DATA")
    sides = [Path(data, "en-de", f"train.{lang}.zst") if data else None for lang in ("en", "de")]
    parser.add_argument("--corpus-src", type=Path, default=sides[0], required=not data)
    parser.add_argument("--corpus-trg", type=Path, default=sides[1], required=not data)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--chunk-cells", help="passed on to pipeline.align.align")
    parser.add_argument("--eflomal", type=Path, help="the program eflomal-align")
    parser.add_argument("--systran-align", type=Path, help="a Python that can import systran_align")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = 0
        with write_columns(folder / "src.zst", folder / "trg.zst", folder / "both.txt") as files:
            for src, trg in itertools.islice(read_parallel(args.corpus_src, args.corpus_trg), args.pairs):
                words = [" ".join(word.casefold() for word in split_words(side)) for side in (src, trg)]
                if all(words) and not any("|||" in side for side in words):
                    files.write(src, trg, " ||| ".join(words))
                    pairs += 1
        results = {"ours": ours(folder, ["--chunk-cells", args.chunk_cells] if args.chunk_cells else [])}
        if args.eflomal:
            results["eflomal"] = eflomal(folder, args.eflomal)
        if args.systran_align:
            results["fast_align"] = fast_align(folder, args.systran_align, pairs)
    for aligner, (seconds, links) in results.items():
        print(
            f"{aligner}: {seconds:.1f} CPU-s, {pairs / seconds:,.0f} pairs/s, {len(links) / pairs:.2f} links per pair"
        )
    for (one, (_, a)), (other, (_, b)) in itertools.combinations(results.items(), 2):
        print(f"{one} and {other} agree: F1 {2 * len(a & b) / (len(a) + len(b)):.4f}")


if __name__ == "__main__":
    main()
