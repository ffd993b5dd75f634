"""Align the words of a parallel corpus: which source words each target word translates.

Each line of the output belongs to the same line of the corpus and holds links `i-j` (Pharaoh format): word i of the
source stands for word j of the target, counted from 0, words as pipeline.common.words splits them. A pair with an empty
side gives an empty line. Both directions are trained by the model of fast_align (Dyer et al., 2013) and joined by
grow-diag-final-and.

The words themselves can be written (--output-tok) for those who use the links elsewhere.

Expected counts of word pairs can be written (--output-priors) and made known to the alignment of other text of the same
languages (--priors): lines of direction, source word, target word and count.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.align.corpus import CHUNK_CELLS, CorpusAligner
from pipeline.align.priors import Priors, read_priors, write_priors
from pipeline.align.symmetrize import Links
from pipeline.align.words import Words
from pipeline.common.command import run_command
from pipeline.common.corpus import read_parallel, write_columns
from pipeline.common.errors import UserError
from pipeline.common.files import write_json, write_lines
from pipeline.common.words import split_words

EXAMPLE = """example:
  python -m pipeline.align.align --corpus-src corpus.en.zst --corpus-trg corpus.de.zst --output corpus.aln.zst \\
    --output-priors corpus.priors.zst
  python -m pipeline.align.align --corpus-src mono.en.zst --corpus-trg mono.de.zst --output mono.aln.zst \\
    --priors corpus.priors.zst
"""


def pharaoh_lines(links: Links, pairs: int) -> Iterator[str]:
    """The links of each of so many sentence pairs as `i-j i-j …`."""
    texts = [f"{i}-{j}" for i, j in zip(links.src.tolist(), links.trg.tolist(), strict=True)]
    ends = np.searchsorted(links.pair, np.arange(pairs), side="right").tolist()
    start = 0
    for end in ends:
        yield " ".join(texts[start:end])
        start = end


def align_corpus(
    paths: tuple[Path, Path],
    output: Path,
    priors: Path | None = None,
    output_priors: Path | None = None,
    chunk_cells: int = CHUNK_CELLS,
) -> dict[str, Any]:
    """Write the alignments of a corpus, a line for each pair, and return statistics.

    Raises UserError on sides of unequal length and on bad priors.
    """
    known, src, trg = read_priors(priors) if priors else (Priors.none(), Words(), Words())
    aligner = CorpusAligner(paths, src, trg, known, chunk_cells)
    links = too_long = without = 0
    with write_lines(output) as file:
        for bitext, found in aligner.chunks():
            for line in pharaoh_lines(found, len(bitext)):
                file.write(line)
                without += not line
            links += len(found.pair)
            too_long += bitext.too_long
        if file.lines != aligner.lines:
            raise UserError(f"{paths[0]} changed while it was read: {aligner.lines} lines, then {file.lines}")
    if output_priors:
        write_priors(output_priors, aligner.priors, aligner.src, aligner.trg)
    return {"pairs": aligner.lines, "links": links, "pairs-without-links": without, "pairs-too-long": too_long}


def write_words(paths: tuple[Path, Path], outputs: tuple[Path, Path]) -> None:
    """Write a corpus as the words that its alignments count, with spaces between them."""
    with write_columns(*outputs) as output:
        for pair in read_parallel(*paths):
            output.write(*(" ".join(split_words(text)) for text in pair))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus-src", type=Path, required=True, help="source side: plain, .gz or .zst")
    parser.add_argument("--corpus-trg", type=Path, required=True, help="target side, line by line with the source")
    parser.add_argument("--output", type=Path, required=True, help="alignments to write (.zst)")
    parser.add_argument("--priors", type=Path, help="expected counts learnt from other text")
    parser.add_argument("--output-priors", type=Path, help="expected counts to write (.zst)")
    parser.add_argument(
        "--output-tok",
        nargs=2,
        type=Path,
        metavar=("SRC", "TRG"),
        help="both sides as the words that the links count, with spaces between them: what others need to use them",
    )
    parser.add_argument("--stats", type=Path, help="JSON to write: pairs, links, pairs without links or too long")
    parser.add_argument(
        "--chunk-cells",
        type=int,
        default=CHUNK_CELLS,
        help="how many combinations of source and target words are held in memory at a time, at about 30 bytes each; "
        "a single pair that has more gets an empty line (default: %(default)s)",
    )
    args = parser.parse_args(arguments)
    if args.chunk_cells < 1:
        raise UserError(f"--chunk-cells {args.chunk_cells}: it must be 1 or more")
    paths = (args.corpus_src, args.corpus_trg)
    stats = align_corpus(paths, args.output, args.priors, args.output_priors, args.chunk_cells)
    if args.output_tok:
        write_words(paths, tuple(args.output_tok))
    if args.stats:
        write_json(args.stats, stats)


if __name__ == "__main__":
    run_command(main)
