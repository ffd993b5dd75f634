"""Speed of cleaning, beside OpusFilter where it is installed.

Cleans `en-de/noisy.{en,de}.zst` under the data folder with all rules, with and without language identification, and
prints pairs per second of CPU time (reading, cleaning and writing included; loading the identifier's models not).
OpusFilter gets the same pairs from the same reader and writes with the same writer; its filters are the ones nearest to
our rules, and it is spared what it has no filter for (normalisation, damaged text, addresses, statistics). Its filter
of repeated text is far slower than the others, so it is measured with and without it.
"""

import argparse
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.clean import parallel
from pipeline.common.corpus import read_parallel, write_columns
from pipeline.common.identify import LanguageJudge

EXAMPLE = """example:
  python benchmarks/clean.py --data ~/corpora --rounds 3
"""


def peer_filters(identify: bool, repetition: bool) -> list[Any]:
    """OpusFilter's counterparts of our rules, with thresholds near ours."""
    from opusfilter import filters

    chosen = [
        filters.LengthFilter(min_length=1, max_length=150, unit="word"),
        filters.LengthRatioFilter(threshold=3, unit="char"),
        filters.LongWordFilter(threshold=80),
        filters.AlphabetRatioFilter(threshold=0.3),
        filters.CharacterScoreFilter(scripts=["Latin", "Latin"], thresholds=[0.3, 0.3]),
        filters.NonZeroNumeralsFilter(threshold=0.5),
        filters.SimilarityFilter(threshold=0.9, unit="word"),
    ]
    if repetition:
        chosen.append(filters.RepetitionFilter(threshold=4, min_length=3, max_length=100))
    if identify:
        chosen.append(filters.HeliportSimpleFilter(languages=["en", "de"], thresholds=[0, 0]))
    return chosen


def run_ours(inputs: tuple[Path, Path], folder: Path, identify: bool) -> tuple[int, int]:
    """Clean once; returns the pairs read and kept."""
    outputs = (folder / "ours.en.zst", folder / "ours.de.zst")
    rules = None if identify else {"language": False}
    stats = parallel.clean("en", "de", inputs, outputs, folder / "removed.zst", rules, "noisy")
    return stats["read"], stats["kept"]


def run_peer(inputs: tuple[Path, Path], folder: Path, filters: list[Any]) -> tuple[int, int]:
    """Filter once with OpusFilter; returns the pairs read and kept."""
    read = 0

    def counted() -> Iterator[tuple[str, str]]:
        nonlocal read
        for pair in read_parallel(*inputs):
            read += 1
            yield pair

    pairs = counted()
    for chosen in filters:
        pairs = chosen.filter(pairs)
    with write_columns(folder / "peer.en.zst", folder / "peer.de.zst") as output:
        for src, trg in pairs:
            output.write(src, trg)
        kept = output.lines
    return read, kept


def measure(run: Callable[[Path], tuple[int, int]], rounds: int) -> tuple[float, int]:
    """The best rate of some rounds, in pairs per second of CPU time, and the pairs kept."""
    best, kept = 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            start = time.process_time()
            read, kept = run(Path(folder))
            best = max(best, read / (time.process_time() - start))
    return best, kept


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = os.environ.get("LIMBECK_DATA")
    parser.add_argument("--data", type=Path, default=data, required=not data, help="default: $LIMBECK_DATA")
    parser.add_argument("--rounds", type=int, default=2, help="the best of so many rounds counts (default: 2)")
    args = parser.parse_args()
    inputs = (args.data / "en-de/noisy.en.zst", args.data / "en-de/noisy.de.zst")
    peer = importlib.util.find_spec("opusfilter") is not None
    LanguageJudge("de")  # loads the models, once per process
    for identify in (False, True):
        label = "all rules" if identify else "all but language identification"
        ours, kept = measure(partial(run_ours, inputs, identify=identify), args.rounds)
        print(f"{label}: limbeck {ours:,.0f} pairs/s (kept {kept:,})")
        for repetition in (False, True) if peer else ():
            filters = peer_filters(identify, repetition)
            theirs, kept = measure(partial(run_peer, inputs, filters=filters), args.rounds)
            name = "opusfilter" if repetition else "opusfilter without repetition"
            print(f"  {name} {theirs:,.0f} pairs/s (kept {kept:,}): limbeck is {ours / theirs:.1f} times as fast")
    if not peer:
        print("to compare with OpusFilter: pip install opusfilter")


if __name__ == "__main__":
    main()
