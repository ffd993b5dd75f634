"""A seeded, uniform shuffle of any number of lines in bounded memory.

Every line goes to a random bucket on disk (compressed), and each bucket is shuffled in memory. All orders are equally
likely, as each line's place is independent of the others'.
"""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from pipeline.common.corpus import read_columns, write_columns

BUCKET_LINES = 250_000
MOST_BUCKETS = 128  # open files and compressors


def shuffled(
    rows: Iterable[tuple[str, ...]], count: int, columns: int, seed: int, folder: Path
) -> Iterator[tuple[str, ...]]:
    """Yield rows of text columns in random order.

    `count` is the expected number of rows (it sets the number of buckets), `folder` where the buckets lie meanwhile.
    The same rows, count and seed give the same order everywhere.
    """
    draws = np.random.PCG64(seed)
    buckets = min(MOST_BUCKETS, -(-count // BUCKET_LINES))
    if buckets <= 1:
        yield from _in_random_order(list(rows), draws)
        return
    with tempfile.TemporaryDirectory(dir=folder, prefix=".shuffle-") as place:
        paths = [[Path(place) / f"{bucket}.{column}.zst" for column in range(columns)] for bucket in range(buckets)]
        with ExitStack() as stack:
            writers = [stack.enter_context(write_columns(*bucket)) for bucket in paths]
            for row in rows:
                writers[int(draws.random_raw()) * buckets >> 64].write(*row)
        for bucket in paths:
            yield from _in_random_order(list(read_columns(*bucket)), draws)
            for path in bucket:
                path.unlink()


def _in_random_order(rows: list[tuple[str, ...]], draws: np.random.PCG64) -> Iterator[tuple[str, ...]]:
    for index in np.argsort(draws.random_raw(len(rows)), kind="stable"):
        yield rows[index]
