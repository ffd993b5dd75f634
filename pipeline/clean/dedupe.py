"""Finding duplicates among any number of lines with 64-bit digests in flat arrays.

A digest takes 8 bytes a line (9 with the growth reserve of a bytearray), the work on them about 3 more: far less than a
set of Python objects (60 and more). Two different lines share a digest with a probability of about n^2 / 2^65: one line
lost among a billion is the price.
"""

import unicodedata
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Digest = NDArray[np.uint64]
Mask = NDArray[np.bool_]

_PART = 1 << 20  # lines sorted at a time


def same_line(text: str) -> str:
    """What two lines have in common when one is the duplicate of the other: the text in NFC, stripped."""
    return unicodedata.normalize("NFC", text).strip()


class Digests:
    """A growing list of 64-bit digests of lines."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def __len__(self) -> int:
        return len(self._bytes) // 8

    def add(self, text: str) -> None:
        self._bytes += blake2b(text.encode(), digest_size=8).digest()

    def array(self) -> Digest:
        """The digests as an array uint64 [lines] on the same memory; nothing can be added while it is in use."""
        return np.frombuffer(self._bytes, dtype="<u8")


def first_occurrences(digests: Digest, candidates: Mask, scores: NDArray[np.float32] | None = None) -> Mask:
    """One candidate of each set of equal digests: the first line, or the first with the highest score.

    digests uint64 [lines], candidates bool [lines], scores float32 [lines] or None; returns bool [lines]. Works through
    the lines in parts by their digest's leading bits, so that only a part is ever sorted.
    """
    keep = np.zeros(len(digests), dtype=np.bool_)
    parts = min(256, -(-max(len(digests), 1) // _PART))
    leading = digests.view(np.uint8)[7::8]  # little-endian: the last byte leads
    for part in range(parts):
        low, high = -(-256 * part // parts), -(-256 * (part + 1) // parts)
        chosen = leading >= low
        chosen &= leading < high if high < 256 else True
        chosen &= candidates
        lines = np.flatnonzero(chosen)
        del chosen
        keys = digests[lines]
        order = np.argsort(keys, kind="stable") if scores is None else np.lexsort((-scores[lines], keys))
        keys = keys[order]
        first = np.ones(len(keys), dtype=np.bool_)
        first[1:] = keys[1:] != keys[:-1]
        keep[lines[order[first]]] = True
    return keep


def members(digests: Digest, others: Digest) -> Mask:
    """Which digests stand in another list, which is sorted in ascending order. Returns bool [lines]."""
    found = np.zeros(len(digests), dtype=np.bool_)
    if not len(others):
        return found
    for start in range(0, len(digests), _PART):
        keys = digests[start : start + _PART]
        places = np.minimum(np.searchsorted(others, keys), len(others) - 1)
        found[start : start + _PART] = others[places] == keys
    return found


def sample(keep: Mask, size: int | None, seed: int) -> Mask:
    """A uniform sample of `size` of the kept lines (all of them when None or fewer). bool [lines] in and out.

    The same seed gives the same sample everywhere: numpy promises a bit generator's raw stream, not its distributions.
    """
    count = int(np.count_nonzero(keep))
    if size is None or count <= size:
        return keep
    draws = np.random.PCG64(seed).random_raw(count)
    bound = np.partition(draws, size - 1)[size - 1]
    chosen = keep.copy()
    chosen[keep] = draws <= bound
    return chosen
