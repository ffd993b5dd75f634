"""A teacher's distributions over target pieces as text: one line for a sentence pair, in step with its corpus.

A line is whole numbers between spaces. The first is k; then come k pairs for each target piece and for the end of
sentence: the id of a piece, and its log-probability in thousandths of a nat without the minus sign, the likeliest piece
first. `2 41 105 7 2303 0 10 3 4605` says that the first piece is 41 with probability exp(-0.105) = 0.90 or 7 with 0.10,
and that the sentence then ends with 0.99. An empty line is a pair that has none (too long, or empty on one side).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.common.errors import UserError

_STEPS = 1000  # of a nat: probabilities to a thousandth of their own size
_LARGEST = (1 << 16) - 1  # fits two bytes; exp(-65) is as good as nothing

Ints = NDArray[np.int32]


def format_distributions(ids: NDArray[np.int32], log_probs: NDArray[np.float32]) -> str:
    """The line of a pair: ids and log-probabilities [T, k] of the likeliest pieces at each target position."""
    length, count = ids.shape
    numbers = np.empty((length, count, 2), dtype=np.int64)
    numbers[..., 0] = ids
    numbers[..., 1] = np.rint(np.clip(-_STEPS * log_probs, 0, _LARGEST))
    return f"{count} {' '.join(map(str, numbers.ravel().tolist()))}"


def parse_distributions(line: str, length: int, vocab_size: int) -> Ints:
    """The numbers [length, k, 2] of a line: ids and thousandths of nats.

    `length` is the number of target ids with the end of sentence. Raises UserError when the line is of another pair or
    another vocabulary, or malformed.
    """
    try:
        numbers = np.fromstring(line, dtype=np.int32, sep=" ")  # four times as fast as splitting
    except (ValueError, DeprecationWarning):  # which of them depends on the version
        raise UserError(f"{line[:60]!r} are not stored distributions: whole numbers are needed") from None
    count = int(numbers[0]) if len(numbers) else 0
    if not 1 <= count < vocab_size or len(numbers) != 1 + 2 * count * length:
        raise UserError(
            f"stored distributions do not fit their sentence of {length} target pieces ({line[:40]!r}, {len(numbers)} "
            "numbers): they were made from another corpus or vocabulary, or of pairs up to a smaller max-length"
        )
    pairs: Ints = numbers[1:].reshape(length, count, 2)
    if pairs.min() < 0 or pairs[..., 1].max() > _LARGEST:
        raise UserError(f"{line[:60]!r} are not stored distributions: a log-probability is out of range")
    if pairs[..., 0].max() >= vocab_size:
        raise UserError(f"stored distributions name piece {pairs[..., 0].max()}, but there are only {vocab_size}")
    return pairs


def probabilities(numbers: NDArray[Any]) -> NDArray[np.float32]:
    """Probabilities from thousandths of nats."""
    found: NDArray[np.float32] = np.exp(numbers.astype(np.float32) / -_STEPS)
    return found
