"""What is known of word pairs before a bitext is aligned: expected counts from other text."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.align.bitext import Ints
from pipeline.align.words import Words
from pipeline.common.errors import UserError
from pipeline.common.files import read_lines, write_lines

Doubles = npt.NDArray[np.float64]

# Smaller expected counts change nothing; without them the table stays about as large as the text.
LEAST_COUNT = 0.05


@dataclass(frozen=True)
class Known:
    """Prior counts laid out for the word pairs and words of one bitext."""

    forward: Doubles  # (pairs,)
    backward: Doubles  # (pairs,)
    src_total: Doubles  # (source types,): of all pairs of the source word in forward direction
    trg_total: Doubles  # (target types,): of all pairs of the target word in backward direction
    null_trg: Doubles  # (target types,): target words from null
    null_src: Doubles  # (source types,): source words from null


@dataclass(frozen=True)
class Priors:
    """Expected counts of distinct word pairs, sorted by source word, then target word, and of words from null.

    Forward is the direction in which source words generate target words, backward the other.
    """

    src: Ints
    trg: Ints
    forward: Doubles
    backward: Doubles
    null_trg: Doubles  # indexed by target word
    null_src: Doubles  # indexed by source word

    @classmethod
    def none(cls) -> "Priors":
        no_ids, no_counts = np.zeros(0, np.int64), np.zeros(0)
        return cls(no_ids, no_ids, no_counts, no_counts, no_counts, no_counts)

    @classmethod
    def of(
        cls, src: Ints, trg: Ints, forward: Doubles, backward: Doubles, null_trg: Doubles, null_src: Doubles
    ) -> "Priors":
        """Priors of counts of sorted pairs, less those that are too small to matter."""
        kept = np.maximum(forward, backward) >= LEAST_COUNT
        return cls(src[kept], trg[kept], forward[kept], backward[kept], null_trg.copy(), null_src.copy())

    def plus(self, other: "Priors") -> "Priors":
        """The sum of both; their words must be numbered alike."""
        keys, place = np.unique(np.concatenate([self._keys(), other._keys()]), return_inverse=True)
        return Priors(
            keys >> 32,
            keys & 0xFFFFFFFF,
            totals(place, np.concatenate([self.forward, other.forward]), len(keys)),
            totals(place, np.concatenate([self.backward, other.backward]), len(keys)),
            _sum(self.null_trg, other.null_trg),
            _sum(self.null_src, other.null_src),
        )

    def on(self, src: Ints, trg: Ints, src_types: int, trg_types: int) -> Known:
        """Look up distinct word pairs, sorted by source, then target word. Words known here must have the same ids
        there."""
        counts = np.zeros((2, len(src)))
        if len(src):
            # There are fewer pairs known than looked up.
            keys, wanted = self._keys(), (src << 32) | trg
            place = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
            found = wanted[place] == keys
            counts[0, place[found]] = self.forward[found]
            counts[1, place[found]] = self.backward[found]
        return Known(
            counts[0],
            counts[1],
            totals(self.src, self.forward, src_types),
            totals(self.trg, self.backward, trg_types),
            _sum(self.null_trg, np.zeros(trg_types)),
            _sum(self.null_src, np.zeros(src_types)),
        )

    def _keys(self) -> Ints:
        return (self.src << 32) | self.trg


def totals(ids: Ints, values: Doubles, types: int = 0) -> Doubles:
    """The sum of the values of each id."""
    sums: Doubles = np.bincount(ids, values, types).astype(np.float64, copy=False)
    return sums


def _sum(one: Doubles, other: Doubles) -> Doubles:
    total = np.zeros(max(len(one), len(other)))
    total[: len(one)] += one
    total[: len(other)] += other
    return total


def write_priors(path: Path, priors: Priors, src: Words, trg: Words) -> None:
    """Write lines of `direction <tab> source word <tab> target word <tab> expected count`; the null word is empty."""
    src_words, trg_words = list(src.forms), list(trg.forms)
    with write_lines(path) as file:
        for direction, counts, null in (
            ("forward", priors.forward, priors.null_trg),
            ("backward", priors.backward, priors.null_src),
        ):
            for word in np.flatnonzero(null >= LEAST_COUNT).tolist():
                pair = f"\t{trg_words[word]}" if direction == "forward" else f"{src_words[word]}\t"
                file.write(f"{direction}\t{pair}\t{null[word]:.4f}")
            kept = counts >= LEAST_COUNT
            rows = zip(priors.src[kept].tolist(), priors.trg[kept].tolist(), counts[kept].tolist(), strict=True)
            for src_word, trg_word, count in rows:
                file.write(f"{direction}\t{src_words[src_word]}\t{trg_words[trg_word]}\t{count:.4f}")


def read_priors(path: Path) -> tuple[Priors, Words, Words]:
    """Read what `write_priors` wrote, with the words numbered anew.

    Raises UserError, with the line, on anything else.
    """
    src, trg = Words(), Words()
    columns: dict[str, tuple[list[int], list[int], list[float]]] = {"forward": ([], [], []), "backward": ([], [], [])}
    nulls: dict[str, tuple[list[int], list[float]]] = {"forward": ([], []), "backward": ([], [])}
    for direction, src_word, trg_word, count in _rows(path):
        if src_word and trg_word:
            sources, targets, counts = columns[direction]
            sources.append(src.id(src_word))
            targets.append(trg.id(trg_word))
            counts.append(count)
        else:
            words, counts = nulls[direction]
            words.append(trg.id(trg_word) if direction == "forward" else src.id(src_word))
            counts.append(count)
    both = Priors.none()
    for direction, (sources, targets, counts) in columns.items():
        values, zeros = np.array(counts), np.zeros(len(counts))
        forward = direction == "forward"
        words, null_counts = nulls[direction]
        null = totals(np.array(words, np.int64), np.array(null_counts))
        both = both.plus(
            Priors(
                np.array(sources, np.int64),
                np.array(targets, np.int64),
                values if forward else zeros,
                zeros if forward else values,
                null if forward else np.zeros(0),
                np.zeros(0) if forward else null,
            )
        )
    return both, src, trg


def _rows(path: Path) -> Iterator[tuple[str, str, str, float]]:
    for number, line in enumerate(read_lines(path), 1):
        try:
            direction, src_word, trg_word, text = line.split("\t")
            count = float(text)
            generated = {"forward": trg_word, "backward": src_word}[direction]
            if not (generated and 0 <= count < float("inf")):
                raise ValueError
        except (ValueError, KeyError):
            raise UserError(
                f"{path}, line {number}: {line[:80]!r} is not `forward` or `backward`, source word, target word and "
                "expected count, with tabs between"
            ) from None
        yield direction, src_word, trg_word, count
