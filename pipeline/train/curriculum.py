"""Which corpora training reads, in which proportions and for how long."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
            f"how are {', '.join(corpora) or 'no corpora at all'} to be mixed? Give --curriculum, or one corpus, or "
            "original and backtranslated"
        )
    if teacher_mode == "one-stage":
        return [Stage(_ONE_STAGE)]
    return [Stage(_TWO_STAGE, ("backtranslated", _TWO_STAGE_EPOCHS)), Stage({"original": 1.0})]


def parse_curriculum(value: Any, corpora: Sequence[str]) -> list[Stage]:
    """The stages that a config lists, over these corpora.

    Each is a mapping: `mix` gives corpora and their weights (of any sum), `until` is such as `2e of backtranslated`:
    the stage ends when that corpus was read twice since the beginning of training. The last stage, and only that one,
    ends with training. Raises UserError for anything else.
    """
    if not isinstance(value, list) or not value:
        raise UserError(f"curriculum: {value!r} is not a list of stages such as {_EXAMPLE}")
    stages = [_parse_stage(stage, f"curriculum, stage {number}", corpora) for number, stage in enumerate(value, 1)]
    for number, stage in enumerate(stages, 1):
        if stage.until is None and number < len(stages):
            raise UserError(f"curriculum, stage {number}: no until, so that stage {number + 1} would never begin")
    if stages[-1].until is not None:
        raise UserError(f"curriculum, stage {len(stages)}: the last stage ends with training, so it has no until")
    read: dict[str, int] = {}
    for number, (name, epochs) in enumerate((stage.until for stage in stages if stage.until), 1):
        if epochs <= read.get(name, 0):
            raise UserError(
                f"curriculum, stage {number}: until {epochs}e of {name} is over before it begins, for epochs count "
                f"from the beginning of training: {name} was read {read[name]} times by then"
            )
        read[name] = epochs
    unread = sorted(set(corpora) - {name for stage in stages for name in stage.weights})
    if unread:
        raise UserError(f"curriculum: no stage reads {', '.join(unread)}: leave the corpus out, or name it in a mix")
    return stages


def describe_stage(stage: Stage) -> str:
    """`0.6 original and 0.4 backtranslated until 2 epochs of backtranslated`."""
    mixture = " and ".join(f"{weight:g} {name}" for name, weight in stage.weights.items())
    until = f" until {stage.until[1]} epochs of {stage.until[0]}" if stage.until else ""
    return mixture.removeprefix("1 ") + until


_EXAMPLE = (
    '[{"mix": {"original": 0.6, "backtranslated": 0.4}, "until": "2e of backtranslated"}, {"mix": {"original": 1}}]'
)


def _parse_stage(value: Any, where: str, corpora: Sequence[str]) -> Stage:
    if not isinstance(value, Mapping) or not isinstance(value.get("mix"), Mapping) or not value["mix"]:
        raise UserError(f"{where}: {value!r} has no mix of corpora and weights; a curriculum looks like {_EXAMPLE}")
    if unknown := sorted(value.keys() - {"mix", "until"}):
        raise UserError(f"{where}: {', '.join(unknown)}: a stage has mix and until only")
    weights = {}
    for name, weight in value["mix"].items():
        if name not in corpora:
            raise UserError(f"{where}: the corpus {name} is not given, only {', '.join(corpora)}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
            raise UserError(f"{where}: the weight of {name} is a number above 0, not {weight!r}")
        weights[name] = float(weight)
    total = sum(weights.values())
    weights = {name: weight / total for name, weight in weights.items()}
    if (until := value.get("until")) is None:
        return Stage(weights)
    match = re.fullmatch(r"\s*([1-9]\d*)\s*e(?:pochs?)?\s+of\s+(\S+)\s*", str(until))
    if match is None:
        raise UserError(f"{where}: until {until!r} is not such as `2e of {next(iter(weights))}`")
    if match[2] not in weights:
        raise UserError(f"{where}: until an epoch of {match[2]}, which is not in the mix of {', '.join(weights)}")
    return Stage(weights, (match[2], int(match[1])))


def next_corpus(weights: Mapping[str, float], taken: Mapping[str, int]) -> str:
    """The corpus that is furthest behind its weight after `taken` rows of each: an exact, repeatable mixture."""
    total = sum(taken.get(name, 0) for name in weights) + 1
    return max(weights, key=lambda name: weights[name] * total - taken.get(name, 0))
