"""Beam search, greedy search and sampling over one model or an ensemble, in batches.

The rules of the beam are CTranslate2's, so that a translation does not depend on which of the two made it: 2k
candidates per step, those among the best k that end the sentence are finished hypotheses and give their place to the
next best that goes on, a sentence is done with k finished ones, and no translation is empty. Scores are
log-probabilities divided by length^normalize, where the length counts the end of sentence.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.common.errors import UserError
from pipeline.model.decoding import LENGTH_FACTOR, LONGEST, Sampling
from pipeline.model.ensemble import Ensemble
from pipeline.model.inference import VOCAB_BLOCK, InferenceModel
from pipeline.model.transformer import Transformer
from pipeline.model.vocab import EOS_ID

LENGTH_SLACK = 10  # a single word may need many times its own number of pieces
_FEWEST_TO_DROP = 1 / 8  # share of finished sentences from which on it pays to move the others together


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
    models: Sequence[Transformer | InferenceModel],
    src_ids: Tensor,
    src_mask: Tensor,
    beam_size: int,
    normalize: float = 1.0,
    max_length_factor: float = LENGTH_FACTOR,
    max_length: int = LONGEST,
    n_best: int = 1,
    allow_unk: bool = False,
    prefixes: Sequence[Sequence[int]] | None = None,
    candidates: Tensor | None = None,
    sampling: Sampling | None = None,
) -> list[list[Hypothesis]]:
    """Translate source ids [B, S] with mask [B, S] (True: real); for each sentence `n_best` hypotheses, best first.

    Several models vote with the mean of their log-probabilities. A translation is cut at `longest_translation`. There
    can be fewer than `n_best` hypotheses when a sentence is cut. Whoever translates many batches makes each
    InferenceModel once; a Transformer is laid out anew, in the type of the autocast around this call.

    - `prefixes`: target ids that each sentence's translations begin with (empty: none). They count in the length, but
      not in the score.
    - `candidates`: the only target ids [C] of this batch, as a lexical shortlist gives them; probabilities are over
      them alone. The end of sentence must be among them.
    - `sampling`: with a beam of 1, `n_best` independent samples of each sentence. Scores are the model's
      log-probabilities of the samples, at temperature 1 and among all pieces.

    Raises UserError when `n_best` exceeds the beam, the beam is too wide for the vocabulary, or an id is none of it.
    """
    vocab_size = models[0].config.dim_vocabs[1]
    if candidates is not None:
        candidates = _checked_candidates(candidates, vocab_size)
    choices = vocab_size if candidates is None else len(candidates)
    lanes = n_best if sampling else beam_size
    if sampling and beam_size != 1:
        raise UserError(f"sampling with beam size {beam_size}: samples are drawn one by one, with beam size 1")
    if not 1 <= n_best <= lanes or 2 * beam_size > choices:
        raise UserError(
            f"beam size {beam_size} with {n_best} best of a vocabulary of {choices} pieces: "
            "the beam must hold the best ones, and be at most half the vocabulary"
        )
    limits = [longest_translation(int(length), max_length_factor, max_length) for length in src_mask.sum(1).tolist()]
    forced = _forced_pieces(prefixes, len(limits), vocab_size, src_ids.device)
    kind = src_ids.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
    with torch.autocast(kind, enabled=False):
        ready = [InferenceModel(model, dtype) if isinstance(model, Transformer) else model for model in models]
        ensemble = Ensemble(ready, src_ids, src_mask, allow_unk, candidates)
        search = _Search(ensemble, limits, forced, lanes, normalize)
        if sampling or beam_size == 1:
            _search_lanes(search, sampling)
        else:
            _search_beam(search, n_best)
    return [sorted(found, key=lambda hypothesis: -hypothesis.score)[:n_best] for found in search.finished]


def _checked_candidates(candidates: Tensor, vocab_size: int) -> Tensor:
    candidates = torch.unique(candidates)
    if not len(candidates) or int(candidates[0]) != EOS_ID or int(candidates[-1]) >= vocab_size:
        raise UserError(
            f"the candidates of a translation must be ids from 0 to {vocab_size - 1}, the end of sentence "
            f"({EOS_ID}) among them"
        )
    return candidates


def _forced_pieces(
    prefixes: Sequence[Sequence[int]] | None, sentences: int, vocab_size: int, device: torch.device
) -> Tensor:
    """Ids [B, T] of prefixes, with -1 where a sentence's prefix has ended."""
    if prefixes is None:
        return torch.empty((sentences, 0), dtype=torch.long, device=device)
    if len(prefixes) != sentences:
        raise UserError(f"there are {len(prefixes)} prefixes for {sentences} sentences")
    for prefix in prefixes:
        if not all(0 <= piece < vocab_size and piece != EOS_ID for piece in prefix):
            raise UserError(f"the prefix {list(prefix)} must hold ids from 1 to {vocab_size - 1}")
    longest = max(map(len, prefixes), default=0)
    return torch.tensor([[*prefix, *[-1] * (longest - len(prefix))] for prefix in prefixes], device=device)


class _Search:
    """What a search keeps from step to step, and what it has found."""

    def __init__(self, ensemble: Ensemble, limits: list[int], forced: Tensor, lanes: int, normalize: float) -> None:
        self.ensemble, self.lanes, self.normalize = ensemble, lanes, normalize
        self.finished: list[list[Hypothesis]] = [[] for _ in limits]
        self.best_finished = [False] * len(limits)
        device = forced.device
        # Of the sentences still in the batch: their places in it, and whether they are done all the same.
        self.sentences, self.limits = list(range(len(limits))), limits
        self.done = [False] * len(limits)
        self.limit, self.forced = torch.tensor(limits, device=device), forced
        self.chosen: Tensor | None = None  # last pieces [B, K]; K is 1 before the first step
        self.history = torch.empty((len(limits), 1, 0), dtype=torch.long, device=device)
        self.totals = torch.zeros((len(limits), 1), device=device)

    @property
    def length(self) -> int:
        """Pieces of a translation after this step."""
        return self.history.shape[2] + 1

    def forced_now(self) -> Tensor | None:
        """The piece of each sentence's prefix that comes next, [B], or -1; None when no sentence has one."""
        if self.length > self.forced.shape[1]:
            return None
        return self.forced[:, self.length - 1]

    def finish(self, rows: Tensor, parents: Tensor, pieces: Tensor, scores: Tensor, best: Tensor) -> None:
        """Record finished hypotheses: their rows, the ones they go on from, their last pieces and their scores."""
        histories = self.history[rows, parents].tolist()
        for row, ids, piece, score, is_best in zip(
            rows.tolist(), histories, pieces.tolist(), scores.tolist(), best.tolist(), strict=True
        ):
            if self.done[row]:
                continue
            sentence = self.sentences[row]
            complete = ids if piece == EOS_ID else [*ids, piece]
            self.finished[sentence].append(Hypothesis(complete, score / self.length**self.normalize))
            self.best_finished[sentence] |= is_best

    def advance(self, pieces: Tensor, totals: Tensor, parents: Tensor | None) -> Tensor | None:
        """Go on with these pieces [B, K], of the hypotheses `parents` [B, K] (None: each of itself). Sentences that
        are done leave the batch as soon as there are enough of them: then the rows that stay are returned."""
        kept = [row for row, done in enumerate(self.done) if not done]
        sentences: Tensor | None = None
        if kept and len(self.done) - len(kept) >= max(1, _FEWEST_TO_DROP * len(self.done)):
            sentences = torch.tensor(kept, device=pieces.device)
            pieces, totals = pieces[sentences], totals[sentences]
            parents = None if parents is None else parents[sentences]
            self.history, self.limit = self.history[sentences], self.limit[sentences]
            self.forced = self.forced[sentences]
            self.sentences = [self.sentences[row] for row in kept]
            self.limits = [self.limits[row] for row in kept]
            self.done = [False] * len(kept)
        if parents is not None:
            self.history = self.history.gather(1, parents.unsqueeze(-1).expand(-1, -1, self.history.shape[2]))
        self.history = torch.cat([self.history, pieces.unsqueeze(-1)], dim=2)
        self.chosen, self.totals = pieces, totals
        self.ensemble.select(sentences, parents)
        return sentences


def _search_beam(search: _Search, n_best: int) -> None:
    width = search.lanes
    while not all(search.done):
        log_probs = search.ensemble.step(search.chosen)
        scores, pieces = best_pieces(log_probs, 2 * width)
        scores, flat = (scores + search.totals.unsqueeze(-1)).flatten(1).topk(2 * width)
        parents, pieces = flat // (2 * width), search.ensemble.ids(pieces).flatten(1).gather(1, flat)
        if (forced := search.forced_now()) is not None:
            # A prefix leaves one candidate, which the first hypothesis goes on with.
            follows = (forced >= 0).unsqueeze(1)
            alone = torch.full_like(scores, -math.inf)
            alone[:, 0] = search.totals[:, 0]
            scores = torch.where(follows, alone, scores)
            pieces = torch.where(follows, forced.clamp(min=0).unsqueeze(1), pieces)
            parents = parents.masked_fill(follows, 0)
        ends = pieces == EOS_ID

        done = (ends | (search.limit <= search.length).unsqueeze(1))[:, :width] & scores[:, :width].isfinite()
        rows, places = done.nonzero(as_tuple=True)
        if len(rows):
            search.finish(rows, parents[rows, places], pieces[rows, places], scores[rows, places], places == 0)
        for row, sentence in enumerate(search.sentences):
            found = len(search.finished[sentence])
            search.done[row] |= (
                search.limits[row] <= search.length
                or found >= width
                # Without normalisation a finished best hypothesis cannot be overtaken: scores only fall.
                or (search.normalize == 0 and search.best_finished[sentence] and found >= n_best)
            )
        # The best `width` candidates that do not end the sentence, in order.
        going_on = ends.long().argsort(dim=1, stable=True)[:, :width]
        search.advance(pieces.gather(1, going_on), scores.gather(1, going_on), parents.gather(1, going_on))


def _search_lanes(search: _Search, sampling: Sampling | None) -> None:
    """Greedy search, or independent samples: each hypothesis goes on by itself until it ends."""
    ended = torch.zeros((len(search.limits), search.lanes), dtype=torch.bool, device=search.totals.device)
    generator = torch.Generator(search.totals.device).manual_seed(sampling.seed) if sampling else None
    while not all(search.done):
        log_probs = search.ensemble.step(search.chosen)
        parents = None
        if search.chosen is None and search.lanes > 1:
            log_probs = log_probs.expand(-1, search.lanes, -1)
            parents = torch.zeros_like(ended, dtype=torch.long)
        if sampling is None:
            scores, columns = best_pieces(log_probs, 1)
        else:
            columns = _draw(log_probs, sampling, generator)
            scores = log_probs.gather(-1, columns)
        pieces, scores = search.ensemble.ids(columns).squeeze(-1), scores.squeeze(-1)
        if (forced := search.forced_now()) is not None:
            follows = (forced >= 0).unsqueeze(1)
            pieces = torch.where(follows, forced.unsqueeze(1), pieces)
            scores = scores.masked_fill(follows, 0)
        totals = search.totals + scores

        now = ((pieces == EOS_ID) | (search.limit <= search.length).unsqueeze(1)) & ~ended
        rows, places = now.nonzero(as_tuple=True)
        if len(rows):
            origins = places if parents is None else parents[rows, places]
            search.finish(rows, origins, pieces[rows, places], totals[rows, places], places == 0)
            ended = ended | now
            search.done = ended.all(1).tolist()
        if (kept := search.advance(pieces, totals, parents)) is not None:
            ended = ended[kept]


def _draw(log_probs: Tensor, sampling: Sampling, generator: torch.Generator | None) -> Tensor:
    """One column [B, K, 1] each, at random."""
    top_k = min(sampling.top_k, log_probs.shape[-1])
    scores, columns = best_pieces(log_probs, top_k) if top_k else (log_probs, None)
    probabilities = torch.softmax(scores / sampling.temperature, dim=-1)
    drawn = torch.multinomial(probabilities.flatten(0, 1), 1, generator=generator).view(*scores.shape[:2], 1)
    return drawn if columns is None else columns.gather(-1, drawn)


def best_pieces(log_probs: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` highest of log-probabilities [B, K, V'] and their columns, in order.

    Looking for the blocks that hold them first is several times faster than one `topk` over a vocabulary: a block's
    maximum is a vector instruction.
    """
    blocks = log_probs.view(*log_probs.shape[:-1], -1, VOCAB_BLOCK)
    if blocks.shape[-2] <= count:
        return log_probs.topk(count)
    held = blocks.amax(-1).topk(count).indices
    scores, places = blocks.gather(-2, held.unsqueeze(-1).expand(-1, -1, -1, VOCAB_BLOCK)).flatten(-2).topk(count)
    return scores, held.gather(-1, places // VOCAB_BLOCK) * VOCAB_BLOCK + places % VOCAB_BLOCK
