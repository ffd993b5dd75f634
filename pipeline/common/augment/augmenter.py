"""Which changes are made to training text, how often, and where they make sense."""

import dataclasses
import logging
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.common.augment import modifiers
from pipeline.common.augment.modifiers import Pair
from pipeline.common.augment.script import Script
from pipeline.common.errors import UserError

Row = tuple[str, ...]  # source, target and perhaps alignments
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Augmentation:
    """How often each change is made: chances for a sentence pair, that of `tags` for an aligned pair of words.

    Without values nothing is changed. `DEFAULTS` are the field's.
    """

    upper_case: float = 0.0
    title_case: float = 0.0
    remove_end_punct: float = 0.0
    typos: float = 0.0
    noise: float = 0.0
    tags: float = 0.0

    def __bool__(self) -> bool:
        return any(dataclasses.astuple(self))

    def to_yaml(self) -> dict[str, float]:
        """The chances under their names in a config, those of 0 left out."""
        return {name.replace("_", "-"): chance for name, chance in dataclasses.asdict(self).items() if chance}

    def for_script(self, source: Script) -> "Augmentation":
        """Without changes of case if the source has none, and without typos if it does not write sounds."""
        suited = self if source.phonemic else dataclasses.replace(self, typos=0.0)
        if not source.bicameral:
            suited = dataclasses.replace(suited, upper_case=0.0, title_case=0.0)
        if suited != self:
            out = ", ".join(sorted(self.to_yaml().keys() - suited.to_yaml().keys()))
            logger.info(f"training: no {out}, as the source is written in {source.name.lower()} characters")
        return suited


NO_AUGMENTATION = Augmentation()
DEFAULTS = Augmentation(upper_case=0.07, title_case=0.05, remove_end_punct=0.2, typos=0.05, noise=0.0005, tags=0.005)


def parse_augmentation(value: Any) -> Augmentation:
    """`defaults`, `none`, or a mapping of changes to chances, in which changes that it does not name are not made.

    Raises UserError for anything else.
    """
    if value in (None, "none", "defaults"):
        return DEFAULTS if value == "defaults" else NO_AUGMENTATION
    names = [field.name.replace("_", "-") for field in dataclasses.fields(Augmentation)]
    if not isinstance(value, Mapping):
        raise UserError(f"augmentation: {value!r} is not defaults, none, or a mapping of {', '.join(names)} to chances")
    for name, chance in value.items():
        if name not in names:
            raise UserError(f"augmentation: {name!r} is not one of {', '.join(names)}")
        if isinstance(chance, bool) or not isinstance(chance, int | float) or not 0 <= chance <= 1:
            raise UserError(f"augmentation: the chance of {name} is a number between 0 and 1, not {chance!r}")
    return Augmentation(**{name.replace("-", "_"): float(chance) for name, chance in value.items()})


class Augmenter:
    """Makes changes at random, in OpusTrainer's order: case, punctuation, typos, lines of noise, inline noise.

    `languages` are those of the two sides.
    """

    def __init__(self, augmentation: Augmentation, languages: tuple[str, str]) -> None:
        self.augmentation, self.languages = augmentation, languages
        self._log_untagged = math.log1p(-augmentation.tags) if augmentation.tags < 1 else -math.inf

    def augment(self, rows: Sequence[Row], rng: random.Random) -> list[Row]:
        """Rows of (source, target) or (source, target, alignment) with their changes; lines of noise come on top.

        Inline noise needs alignments: rows without get none. Raises UserError on malformed points.
        """
        augmented: list[Row] = []
        for row in rows:
            if rng.random() < self.augmentation.noise:
                augmented.append(_row(modifiers.noise_pair(rng, aligned=len(row) > 2)))
            augmented.append(self._augment_row(row, rng))
        return augmented

    def _augment_row(self, row: Row, rng: random.Random) -> Row:
        a, draw = self.augmentation, rng.random
        pair = original = Pair(*row)
        if draw() < a.upper_case:
            pair = modifiers.upper_case(pair, self.languages)
        if draw() < a.title_case:
            pair = modifiers.title_case(pair, self.languages)
        if draw() < a.remove_end_punct:
            pair = modifiers.remove_end_punctuation(pair)
        if draw() < a.typos:
            pair = modifiers.add_typos(pair, rng)
        if pair.points and a.tags and (chosen := self._choose(pair.points.count("-"), rng)):
            pair = modifiers.insert_noise(pair, chosen, rng)
        return row if pair is original else _row(pair)

    def _choose(self, count: int, rng: random.Random) -> list[int]:
        """Each of `count` numbers by the chance of `tags`: drawn by the gaps between them, as most rows have none."""
        chosen: list[int] = []
        number = -1
        while True:
            number += 1 + int(math.log(1 - rng.random()) / self._log_untagged)
            if number >= count:
                return chosen
            chosen.append(number)


def _row(pair: Pair) -> Row:
    return tuple(value for value in pair if value is not None)
