"""Which corpora training reads, in which proportions and for how long."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.common.errors import UserError

# Weights and lengths with which the field mixes original and back-translated text for teachers.
_ONE_STAGE = {"original": 0.7, "backtranslated": 0.3}
_TWO_STAGE = {"original": 0.6, "backtranslated": 0.4}
_TWO_STAGE_EPOCHS = 2


@dataclass(frozen=True)
class Stage:
    """A part of training: corpora by weight, until one of them was read so many times (None: until training ends)."""

    weights: Mapping[str, float]
    until: tuple[str, int] | None = None


def curriculum(corpora: Sequence[str], teacher_mode: str = "one-stage") -> list[Stage]:
    """The stages for the corpora that are there.

    One corpus alone is read from beginning to end. `original` and `backtranslated` together are mixed 0.7 : 0.3 in one
    stage, or, in two stages, 0.6 : 0.4 for two epochs of the back-translated text, then original text alone.
    Raises UserError for other combinations.
    """
    if len(set(corpora)) != len(corpora):
        raise UserError(f"each corpus may be given once, but there are {', '.join(corpora)}")
    if len(corpora) == 1:
        return [Stage({corpora[0]: 1.0})]
    if set(corpora) != {"original", "backtranslated"}:
        raise UserError(
            f"no curriculum mixes {', '.join(corpora) or 'no corpus at all'}: "
            "give original, original and backtranslated, or distilled"
        )
    if teacher_mode == "one-stage":
        return [Stage(_ONE_STAGE)]
    return [Stage(_TWO_STAGE, ("backtranslated", _TWO_STAGE_EPOCHS)), Stage({"original": 1.0})]


def next_corpus(weights: Mapping[str, float], taken: Mapping[str, int]) -> str:
    """The corpus that is furthest behind its weight after `taken` rows of each: an exact, repeatable mixture."""
    total = sum(taken.get(name, 0) for name in weights) + 1
    return max(weights, key=lambda name: weights[name] * total - taken.get(name, 0))
