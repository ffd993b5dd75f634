"""Whether two engines compute the same model: log-probabilities token by token, and translations.

Log-probabilities are teacher-forced: both engines score the reference's own greedy translations, so that they are asked
the same questions however their searches go. Ids are those of the vocabularies, without the end of sentence.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import torch

from pipeline.common.corpus import read_parallel
from pipeline.common.errors import UserError
from pipeline.model.batches import length_batches
from pipeline.model.search import beam_search, longest_translation
from pipeline.model.transformer import Transformer
from pipeline.model.vocab import EOS_ID, UNK_ID, Vocab

SENTENCES = 200  # of a file, at most
LONGEST_SOURCE = 200  # pieces
RANDOM_SENTENCES = 32
_BATCH, _BATCH_TOKENS = 32, 2000

Ids = Sequence[Sequence[int]]


class Engine(Protocol):
    """Something that computes a model. `source_length` counts pieces without the end of sentence."""

    name: str

    def translate(self, sources: Ids, beam_size: int) -> list[list[int]]:
        """The best hypothesis of each source: no <unk>, none empty, cut at `longest_translation(source_length + 1)`,
        ranked by log-probability / length."""

    def score(self, sources: Ids, targets: Ids) -> list[list[float]]:
        """Natural log-probabilities of each target's pieces and of its end of sentence."""


@dataclass(frozen=True)
class Sample:
    """Sources to compare engines on: ids, and where they are real sentences their text and perhaps translations."""

    sources: list[list[int]]
    description: str
    texts: list[str] | None = None
    references: list[str] | None = None


def read_sample(vocab: Vocab, sentences: Path, references: Path | None = None) -> Sample:
    """The first sentences of a file (plain, gz, zst), at most 200, without those of no piece or of over 200.

    Raises UserError when nothing is left.
    """
    rows = list(islice(read_parallel(sentences, references or sentences), 10 * SENTENCES))
    ids = vocab.encode([row[0] for row in rows], add_eos=False)
    kept = [place for place, source in enumerate(ids) if 0 < len(source) <= LONGEST_SOURCE][:SENTENCES]
    if not kept:
        raise UserError(f"{sentences} holds no sentences to compare on")
    return Sample(
        [ids[place] for place in kept],
        f"{len(kept)} sentences of {sentences.name}",
        [rows[place][0] for place in kept],
        [rows[place][1] for place in kept] if references else None,
    )


def random_sample(vocab_size: int, seed: int = 1) -> Sample:
    """What can be had without text: random pieces in a row. It finds any wrong matrix, but says nothing of quality."""
    maker = random.Random(seed)
    pieces = range(UNK_ID + 1, vocab_size)
    sources = [maker.choices(pieces, k=maker.randint(2, 20)) for _ in range(RANDOM_SENTENCES)]
    return Sample(sources, f"{RANDOM_SENTENCES} rows of random pieces (--sentences FILE compares on real text)")


@dataclass(frozen=True)
class Parity:
    """How far an engine is from the reference, in natural log-probability and in translations."""

    sample: str
    tokens: int
    largest_difference: float
    mean_difference: float
    sentences: int
    same_greedy: int
    ties: int  # greedy translations that part where the reference's two choices are equally likely
    same_beam: int | None
    greedy: list[list[int]]  # the engine's translations

    def describe(self) -> str:
        greedy = f"greedy translations identical {self.same_greedy}/{self.sentences}"
        if self.ties:
            greedy += f" ({self.ties} of the others part at a tie)"
        beam = "" if self.same_beam is None else f", beam-4 {self.same_beam}/{self.sentences}"
        return (
            f"on {self.sample}: log-probabilities of {self.tokens:,} tokens differ by at most "
            f"{self.largest_difference:.1e}, on average {self.mean_difference:.1e}; {greedy}{beam}"
        )


@dataclass(frozen=True)
class Bar:
    """What a conversion must reach: the largest or the mean difference in log-probability, and equal translations."""

    largest: float | None = None
    mean: float | None = None
    same_greedy: bool = False

    def check(self, parity: Parity, name: str) -> None:
        """Raises UserError, with the figures, for a conversion below the bar."""
        # Written so that a difference that is no number fails.
        failed = (
            (self.largest is not None and not parity.largest_difference <= self.largest)
            or (self.mean is not None and not parity.mean_difference <= self.mean)
            or (self.same_greedy and parity.same_greedy + parity.ties < parity.sentences)
        )
        if failed:
            wanted = [f"differences of at most {self.largest:.0e}"] if self.largest is not None else []
            wanted += [f"a mean difference of at most {self.mean}"] if self.mean is not None else []
            wanted += ["identical greedy translations"] if self.same_greedy else []
            raise UserError(f"{name} does not compute the same model ({' and '.join(wanted)}): {parity.describe()}")


EXACT = Bar(largest=5e-5, same_greedy=True)
FLOAT16 = Bar(mean=0.02)
INT8 = Bar(mean=0.25)


def compare(reference: Engine, other: Engine, sample: Sample, beam: bool = False) -> Parity:
    """Measure both engines on a sample; `beam` compares translations with a beam of 4, too."""
    greedy = reference.translate(sample.sources, 1)
    theirs = other.translate(sample.sources, 1)
    ours = _flat(reference.score(sample.sources, greedy))
    differences = (ours - _flat(other.score(sample.sources, greedy))).abs()
    same_beam = None
    if beam:
        searched = zip(reference.translate(sample.sources, 4), other.translate(sample.sources, 4), strict=True)
        same_beam = sum(one == two for one, two in searched)
    return Parity(
        sample.description,
        len(differences),
        float(differences.max()),
        float(differences.mean()),
        len(greedy),
        sum(one == two for one, two in zip(greedy, theirs, strict=True)),
        _ties(reference, sample.sources, greedy, theirs),
        same_beam,
        theirs,
    )


def _flat(scores: list[list[float]]) -> torch.Tensor:
    return torch.tensor([value for sentence in scores for value in sentence], dtype=torch.float64)


def _ties(reference: Engine, sources: Ids, ours: Ids, theirs: Ids) -> int:
    """Differing pairs whose first different pieces are, to the reference, equally likely within rounding."""
    places = [place for place in range(len(sources)) if list(ours[place]) != list(theirs[place])]
    chosen = [reference.score([sources[p] for p in places], [side[p] for p in places]) for side in (ours, theirs)]
    ties = 0
    for place, one, two in zip(places, *chosen, strict=True):
        pairs = zip([*ours[place], EOS_ID], [*theirs[place], EOS_ID], strict=False)
        parting = next((i for i, (first, second) in enumerate(pairs) if first != second), None)
        ties += parting is not None and abs(one[parting] - two[parting]) <= 1e-4
    return ties


class TorchEngine:
    """A model in torch: the reference."""

    def __init__(self, model: Transformer, name: str = "torch") -> None:
        self.name = name
        self._model = model.eval()

    @torch.no_grad()
    def translate(self, sources: Ids, beam_size: int) -> list[list[int]]:
        found: list[list[int]] = [[] for _ in sources]
        for places in batches(sources):
            src, mask = padded([sources[place] for place in places])
            for place, hypotheses in zip(places, beam_search([self._model], src, mask, beam_size), strict=True):
                found[place] = hypotheses[0].ids
        return found

    @torch.no_grad()
    def score(self, sources: Ids, targets: Ids) -> list[list[float]]:
        scores: list[list[float]] = [[] for _ in sources]
        for places in batches(sources, targets):
            src, src_mask = padded([sources[place] for place in places])
            trg, trg_mask = padded([targets[place] for place in places])
            logits, _ = self._model(src, src_mask, trg)
            log_probs = logits.float().log_softmax(-1).gather(2, trg.unsqueeze(-1)).squeeze(-1)
            for row, place in enumerate(places):
                scores[place] = log_probs[row][trg_mask[row]].tolist()
        return scores


def padded(ids: Ids) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids [B, S] of sentences, each with its end, and a mask [B, S] (True: real)."""
    rows = [torch.tensor([*sentence, EOS_ID]) for sentence in ids]
    matrix = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return matrix, torch.arange(matrix.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]


def batches(sources: Ids, targets: Ids | None = None) -> list[list[int]]:
    """Places of sentences of like lengths, in batches."""
    lengths = [len(source) + 1 for source in sources]
    if targets is not None:
        lengths = [max(length, len(target) + 1) for length, target in zip(lengths, targets, strict=True)]
    return list(length_batches(lengths, _BATCH, _BATCH_TOKENS))


def same_limit(sources: Ids) -> list[tuple[int, list[int]]]:
    """Places of sources in batches of equal limits of translation, for engines that have one limit a batch."""
    by_limit: dict[int, list[int]] = {}
    for place, source in enumerate(sources):
        by_limit.setdefault(longest_translation(len(source) + 1), []).append(place)
    return [
        (limit, places[first : first + _BATCH])
        for limit, places in sorted(by_limit.items())
        for first in range(0, len(places), _BATCH)
    ]
