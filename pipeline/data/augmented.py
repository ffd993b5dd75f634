"""Test sets with augmented text: how a model does on capitals, typos or missing punctuation.

What each name means, as chances for a sentence pair, is the field's.
"""

import random
from collections.abc import Iterator
from itertools import chain, islice

from pipeline.common.augment.augmenter import Augmentation, Augmenter
from pipeline.common.augment.script import script_of
from pipeline.common.errors import UserError

_SMALL = 0.05
_MEANING = {
    "title": Augmentation(title_case=1.0),
    "upper": Augmentation(upper_case=1.0),
    "punct": Augmentation(remove_end_punct=1.0),
    "typos": Augmentation(typos=1.0),
    "noise": Augmentation(noise=1.0),
    "mix": Augmentation(upper_case=_SMALL, title_case=_SMALL, remove_end_punct=_SMALL, typos=_SMALL, noise=_SMALL),
    "mix-cjk": Augmentation(remove_end_punct=_SMALL, noise=_SMALL),
}
_SAMPLE = 1000  # rows that tell the script


def augmented(
    rows: Iterator[tuple[str, ...]], name: str, languages: tuple[str, str], seed: int
) -> Iterator[tuple[str, ...]]:
    """Rows of (source, target) with the changes of an augmentation, the same every time for a seed.

    Changes that mean nothing in the source's script are left out of mixes. Raises UserError when none is left.
    """
    first = list(islice(rows, _SAMPLE))
    suited = _MEANING[name].for_script(script_of(row[0] for row in first))
    if first and not suited:
        raise UserError(f"augmentation aug-{name} changes nothing in text as {languages[0]!r} is written: leave it out")
    augmenter, generator = Augmenter(suited, languages), random.Random(seed)
    for row in chain(first, rows):
        yield from augmenter.augment([row], generator)
