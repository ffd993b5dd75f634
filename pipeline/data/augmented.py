"""Test sets with augmented text: how a model does on capitals, typos or missing punctuation.

What each name means, as chances for a sentence pair, is the field's; `inline-noise` alone is done otherwise. A test set
has no word alignments, so noise goes where a place of one side is surely that of the other: behind a word that both
sides have once (a name, a number), else before or behind the whole sentence.
"""

import random
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice

from pipeline.common.augment.augmenter import Augmentation, Augmenter
from pipeline.common.augment.noise import random_words
from pipeline.common.augment.script import script_of
from pipeline.common.errors import UserError
from pipeline.common.words import word_spans

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
    generator = random.Random(seed)
    if name == "inline-noise":
        for source, target in rows:
            yield _with_inline_noise(source, target, generator)
        return
    first = list(islice(rows, _SAMPLE))
    suited = _MEANING[name].for_script(script_of(row[0] for row in first))
    if first and not suited:
        raise UserError(f"augmentation aug-{name} changes nothing in text as {languages[0]!r} is written: leave it out")
    augmenter = Augmenter(suited, languages)
    for row in chain(first, rows):
        yield from augmenter.augment([row], generator)


def _with_inline_noise(source: str, target: str, generator: random.Random) -> tuple[str, str]:
    noise = " ".join(random_words(generator, 2, 10, 3))
    ends = [_ends_of_single_words(text) for text in (source, target)]
    anchors = [word for word in ends[0] if word in ends[1]]
    if anchors:
        anchor = generator.choice(anchors)
        return _inserted(source, ends[0][anchor], noise), _inserted(target, ends[1][anchor], noise)
    if generator.random() < 0.5:
        return f"{noise} {source}", f"{noise} {target}"
    return f"{source} {noise}", f"{target} {noise}"


def _ends_of_single_words(text: str) -> dict[str, int]:
    """The words of letters or digits that stand once in a text, and where they end."""
    words = [(text[start:end], end) for start, end in word_spans(text)]
    counts = Counter(word for word, _ in words)
    return {word: end for word, end in words if counts[word] == 1 and word.isalnum()}


def _inserted(text: str, place: int, noise: str) -> str:
    return f"{text[:place]} {noise} {text[place:].lstrip()}".rstrip()
