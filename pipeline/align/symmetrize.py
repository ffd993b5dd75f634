"""Joining the alignments of both directions: grow-diag-final-and (Koehn, Och & Marcu, 2003; Koehn et al., 2005).

It starts from the links that both directions have, then *grows*: a link of one direction is added when it touches a
link already there (also diagonally) and one of its two words has none yet. At the end it adds those links of one
direction whose words both have none. All sentences are worked on at the same time: a round adds at most one to each.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.align.bitext import Ints

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Links:
    """Links between words, sorted by sentence pair, source and target position (from 0)."""

    pair: Ints
    src: Ints
    trg: Ints


class _Growth:
    """The links chosen so far, as one grid of source by target words per pair, with a border of one around."""

    def __init__(self, src_lengths: Ints, trg_lengths: Ints) -> None:
        self.widths = trg_lengths + 2
        sizes = (src_lengths + 2) * self.widths
        self.starts = np.cumsum(sizes) - sizes
        self.src_starts = np.cumsum(src_lengths) - src_lengths
        self.trg_starts = np.cumsum(trg_lengths) - trg_lengths
        self.touched = np.zeros(int(sizes.sum()), bool)  # cells beside a chosen link
        self.src_linked = np.zeros(int(src_lengths.sum()), bool)
        self.trg_linked = np.zeros(int(trg_lengths.sum()), bool)

    def place(self, links: Links) -> tuple[Ints, Ints, Ints]:
        """Where links lie in `touched`, `src_linked` and `trg_linked`."""
        cell = self.starts[links.pair] + (links.src + 1) * self.widths[links.pair] + links.trg + 1
        return cell, self.src_starts[links.pair] + links.src, self.trg_starts[links.pair] + links.trg

    def choose(self, pair: Ints, cell: Ints, src: Ints, trg: Ints) -> None:
        width = self.widths[pair]
        for step in (-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1):
            self.touched[cell + step] = True
        self.src_linked[src] = True
        self.trg_linked[trg] = True


def grow_diag_final_and(forward: Ints, backward: Ints, src_lengths: Ints, trg_lengths: Ints) -> Links:
    """Symmetrise the alignments of a bitext.

    `forward` (target words,) gives for each target word its source position and `backward` (source words,) for each
    source word its target position, -1 for none, sentence after sentence; the lengths (pairs,) count the words.
    """
    union, in_both, in_forward = _union(forward, backward, src_lengths, trg_lengths)
    growth = _Growth(src_lengths, trg_lengths)
    cell, src, trg = growth.place(union)
    chosen = in_both.copy()
    growth.choose(union.pair[chosen], cell[chosen], src[chosen], trg[chosen])

    def add(candidates: Ints, final: bool) -> None:
        """Choose candidates (in scan order) until no sentence has an eligible one left."""
        while len(candidates):
            src_free, trg_free = ~growth.src_linked[src[candidates]], ~growth.trg_linked[trg[candidates]]
            # Free words never become free again, but a link may be touched later on.
            alive = src_free & trg_free if final else src_free | trg_free
            candidates = candidates[alive]
            eligible = candidates if final else candidates[growth.touched[cell[candidates]]]
            if not len(eligible):
                return
            pairs = union.pair[eligible]
            first = eligible[np.concatenate([[True], pairs[1:] != pairs[:-1]])]
            chosen[first] = True
            growth.choose(union.pair[first], cell[first], src[first], trg[first])
            # A sentence that had nothing to add in this round has nothing to add in the next.
            busy = np.isin(union.pair[candidates], pairs)
            candidates = candidates[busy & ~chosen[candidates]]

    add(np.flatnonzero(~chosen), final=False)
    for direction in (in_forward, ~in_forward):
        add(np.flatnonzero(direction & ~chosen), final=True)
    return Links(union.pair[chosen], union.src[chosen], union.trg[chosen])


def _union(forward: Ints, backward: Ints, src_lengths: Ints, trg_lengths: Ints) -> tuple[Links, Bools, Bools]:
    """All links of either direction; which of them both have, and which the forward direction has."""
    pairs, places = [], []
    for lengths in (src_lengths, trg_lengths):
        pair = np.repeat(np.arange(len(lengths)), lengths)
        pairs.append(pair)
        places.append(np.arange(len(pair)) - np.repeat(np.cumsum(lengths) - lengths, lengths))
    grid_starts = np.cumsum(src_lengths * trg_lengths) - src_lengths * trg_lengths
    has_src, has_trg = forward >= 0, backward >= 0
    trg_pair, src_pair = pairs[1][has_src], pairs[0][has_trg]
    cells = (
        grid_starts[trg_pair] + forward[has_src] * trg_lengths[trg_pair] + places[1][has_src],
        grid_starts[src_pair] + places[0][has_trg] * trg_lengths[src_pair] + backward[has_trg],
    )
    union, first, count = np.unique(np.concatenate(cells), return_index=True, return_counts=True)
    pair = np.concatenate([trg_pair, src_pair])[first]
    src, trg = np.divmod(union - grid_starts[pair], np.maximum(trg_lengths[pair], 1))
    return Links(pair, src, trg), count == 2, first < len(trg_pair)
