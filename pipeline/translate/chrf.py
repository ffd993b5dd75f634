"""Choosing among hypotheses by sentence chrF (Popović, 2015), for many sentences at once.

The scores are sacreBLEU's: character n-grams of 1 to 6 without whitespace, beta 2, effective order. Instead of counting
one hypothesis after the other in dictionaries, the n-grams of all texts are numbered together: an n-gram's number is
the rank of the pair (number of its first n-1 characters, last character). N-grams that begin with something the
reference does not hold cannot match, so most drop out early.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

ORDER = 6
BETA = 2

Array = np.ndarray[Any, Any]


def sentence_chrf(references: Sequence[str], hypotheses: Sequence[Sequence[str]]) -> Array:
    """chrF of each sentence's hypotheses against its reference, float64 [sentences, most hypotheses].

    Sentences may have different numbers of hypotheses; the places without one hold -1.
    """
    width = 1 + max(len(row) for row in hypotheses)
    texts = ["".join(text.split()) for row in zip(references, hypotheses, strict=True) for text in (row[0], *row[1])]
    group = np.repeat(np.arange(len(references)), [1 + len(row) for row in hypotheses])  # of each text
    column = np.concatenate([np.arange(1 + len(row)) for row in hypotheses])  # 0 is the reference
    lengths = np.zeros((len(references), width), dtype=np.int64)
    lengths[group, column] = [len(text) for text in texts]

    totals = np.maximum(lengths[None] - np.arange(ORDER)[:, None, None], 0)  # n-grams, [order, sentence, column]
    totals *= totals[:, :, :1] > 0
    precision, recall = _ratios(totals, _matches(texts, group, column, totals.shape))
    factor = BETA**2
    with np.errstate(divide="ignore", invalid="ignore"):
        score = 100 * ((1 + factor) * precision * recall / (factor * precision + recall))
    score = np.where(precision + recall > 0, score, 0.0)
    present = np.zeros((len(references), width), dtype=bool)
    present[group, column] = True
    return np.where(present, score, -1.0)[:, 1:]


def _ratios(totals: Array, matches: Array) -> tuple[Array, Array]:
    """Precision and recall, averaged over the orders of which hypothesis and reference both have n-grams."""
    reference = totals[:, :, :1]
    effective = (totals > 0) & (reference > 0)
    precision, recall = np.zeros(totals.shape[1:]), np.zeros(totals.shape[1:])
    for order in range(ORDER):  # added up one after the other, as the scalar formula does
        precision += np.where(effective[order], matches[order] / np.maximum(totals[order], 1), 0.0)
        recall += np.where(effective[order], matches[order] / np.maximum(reference[order], 1), 0.0)
    orders = np.maximum(effective.sum(0), 1)
    return precision / orders, recall / orders


def _matches(texts: Sequence[str], group: Array, column: Array, shape: tuple[int, ...]) -> Array:
    """Number of n-grams a text shares with its reference (clipped counts): [order, sentence, column]."""
    matches = np.zeros(shape, dtype=np.int64)
    codes = np.frombuffer("".join(texts).encode("utf-32-le"), dtype=np.uint32)
    alphabet, letters = np.unique(codes, return_inverse=True)
    lengths = np.array([len(text) for text in texts])
    groups, columns = np.repeat(group, lengths), np.repeat(column, lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(codes))  # characters from here to the text's end
    starts, prefix = np.arange(len(codes)), groups  # where an n-gram begins, and the number of its first n-1 letters
    for order in range(ORDER):
        within = left[starts] > order
        starts, prefix = starts[within], prefix[within]
        if not len(starts):
            break
        keys = prefix * len(alphabet) + letters[starts + order]
        ranking = np.argsort(keys)
        starts, keys = starts[ranking], keys[ranking]
        first = np.concatenate(([True], keys[1:] != keys[:-1]))
        numbers = np.cumsum(first) - 1
        counts = np.bincount(numbers * shape[2] + columns[starts], minlength=(numbers[-1] + 1) * shape[2])
        counts = counts.reshape(-1, shape[2])
        # Numbers rise with the sentence, because every prefix does.
        sentence = groups[starts[first]]
        bounds = np.flatnonzero(np.concatenate(([True], sentence[1:] != sentence[:-1])))
        matches[order, sentence[bounds]] = np.add.reduceat(np.minimum(counts, counts[:, :1]), bounds)
        kept = (counts[:, 0] > 0)[numbers]
        starts, prefix = starts[kept], numbers[kept]
    return matches
