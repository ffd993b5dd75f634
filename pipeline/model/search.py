"""Beam search over one model or an ensemble, in batches.

The rules are CTranslate2's, so that a translation does not depend on which of the two made it: 2k candidates per step,
those among the best k that end the sentence are finished hypotheses and give their place to the next best that goes on,
a sentence is done with k finished ones, and no translation is empty. Scores are log-probabilities divided by
length^normalize, where the length counts the end of sentence.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.common.errors import UserError
from pipeline.model.decoding import LENGTH_FACTOR, LONGEST
from pipeline.model.transformer import Transformer
from pipeline.model.vocab import EOS_ID, UNK_ID

LENGTH_SLACK = 10  # a single word may need many times its own number of pieces


@dataclass(frozen=True)
class Hypothesis:
    """A translation: ids without the end of sentence, and its length-normalised log-probability."""

    ids: list[int]
    score: float


def longest_translation(source_length: int, factor: float = LENGTH_FACTOR, max_length: int = LONGEST) -> int:
    """Pieces, with the end of sentence, after which the translation of a source of so many pieces is cut."""
    return max(1, min(math.ceil(factor * source_length) + LENGTH_SLACK, max_length))


@torch.no_grad()
def beam_search(
    models: Sequence[Transformer],
    src_ids: Tensor,
    src_mask: Tensor,
    beam_size: int,
    normalize: float = 1.0,
    max_length_factor: float = LENGTH_FACTOR,
    max_length: int = LONGEST,
    n_best: int = 1,
    allow_unk: bool = False,
) -> list[list[Hypothesis]]:
    """Translate source ids [B, S] with mask [B, S] (True: real); for each sentence `n_best` hypotheses, best first.

    Several models vote with the mean of their log-probabilities. Models must be in evaluation mode. A translation is
    cut at `longest_translation`. There can be fewer than `n_best` hypotheses when a sentence is cut. Raises UserError
    when `n_best` exceeds the beam, or the beam is too wide for the vocabulary.
    """
    vocab_size = models[0].config.dim_vocabs[1]
    if not 1 <= n_best <= beam_size or 2 * beam_size > vocab_size:
        raise UserError(
            f"beam size {beam_size} with {n_best} best of a vocabulary of {vocab_size} pieces: "
            "the beam must hold the best ones, and be at most half the vocabulary"
        )
    device = src_ids.device
    limits = [longest_translation(int(length), max_length_factor, max_length) for length in src_mask.sum(1).tolist()]
    limit = torch.tensor(limits, device=device)
    finished: list[list[Hypothesis]] = [[] for _ in limits]
    best_finished = [False] * len(limits)
    active = list(range(len(limits)))  # sentences still translated, by their place in the batch

    states = [model.start(model.encode(src_ids, src_mask), src_mask) for model in models]
    chosen: Tensor | None = None  # last pieces [B, K]; K is 1 before the first step, then beam_size
    history = torch.empty((len(active), 1, 0), dtype=torch.long, device=device)
    totals = torch.zeros((len(active), 1), device=device)
    while active:
        log_probs = torch.stack(
            [
                _log_probs(model.logits(model.step(chosen, state)), allow_unk, first=chosen is None)
                for model, state in zip(models, states, strict=True)
            ]
        ).mean(0)
        scores, flat = (totals.unsqueeze(-1) + log_probs).flatten(1).topk(2 * beam_size)
        parents, pieces = flat // vocab_size, flat % vocab_size
        ends = pieces == EOS_ID
        width, length = history.shape[1], history.shape[2] + 1
        last = limit <= length

        done = (ends | last.unsqueeze(1))[:, :beam_size] & (scores[:, :beam_size] != -math.inf)
        for row, place in done.nonzero().tolist():
            ids = history[row, int(parents[row, place])].tolist()
            if not ends[row, place]:
                ids.append(int(pieces[row, place]))
            finished[active[row]].append(Hypothesis(ids, float(scores[row, place]) / length**normalize))
            best_finished[active[row]] |= place == 0

        at_limit = last.tolist()
        going_on = [
            row
            for row, sentence in enumerate(active)
            if not at_limit[row]
            and len(finished[sentence]) < beam_size
            # Without normalisation a finished best hypothesis cannot be overtaken: scores only fall.
            and not (normalize == 0 and best_finished[sentence] and len(finished[sentence]) >= n_best)
        ]
        # The best `beam_size` candidates that do not end the sentence, in order.
        places = ends.long().argsort(dim=1, stable=True)[:, :beam_size]
        rows = torch.tensor(going_on, dtype=torch.long, device=device)
        places = places[rows]
        origin = parents[rows].gather(1, places)
        totals, chosen = scores[rows].gather(1, places), pieces[rows].gather(1, places)
        history = torch.cat([history[rows.unsqueeze(1), origin], chosen.unsqueeze(-1)], dim=2)
        limit, active = limit[rows], [active[row] for row in going_on]
        hypotheses = (rows.unsqueeze(1) * width + origin).flatten()
        for state in states:
            state.select(rows, hypotheses)
    return [sorted(found, key=lambda hypothesis: -hypothesis.score)[:n_best] for found in finished]


def _log_probs(logits: Tensor, allow_unk: bool, first: bool) -> Tensor:
    logits = logits.float()
    if not allow_unk:
        logits[..., UNK_ID] = -math.inf
    if first:
        logits[..., EOS_ID] = -math.inf
    return torch.log_softmax(logits, dim=-1)
