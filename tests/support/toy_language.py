"""A pair of made-up languages with a rule between them, for runs of the whole pipeline.

Source sentences are subject, verb, object, and sometimes a place; an adjective stands before its noun. In the target
every word has one translation, the adjective follows its noun, the verb comes last, and a plural (source "-s") ends in
"-im". So a model that learned nothing, sides that were swapped or lines that slipped score near zero, and a good model
near 100.
"""

import random
from pathlib import Path

from pipeline.common.corpus import write_columns
from pipeline.common.files import write_lines

SOURCE_SYLLABLES = ["ba", "ko", "mi", "ru", "ta", "ne", "lo", "vi", "sha", "du"]
TARGET_SYLLABLES = ["zu", "el", "or", "ip", "ag", "yth", "um", "eb", "ix", "on"]


class ToyLanguage:
    """The lexicon and the rule; the same every time."""

    def __init__(self) -> None:
        maker = random.Random(7)
        self.nouns = self._words(maker, 40, 2)
        self.verbs = self._words(maker, 20, 3)
        self.adjectives = self._words(maker, 20, 4)

    def _words(self, maker: random.Random, count: int, length: int) -> list[tuple[str, str]]:
        words: dict[str, str] = {}
        taken: set[str] = set()
        while len(words) < count:
            source = "".join(maker.choices(SOURCE_SYLLABLES, k=length))
            target = "".join(maker.choices(TARGET_SYLLABLES, k=length))
            if source not in words and target not in taken:
                words[source] = target
                taken.add(target)
        return list(words.items())

    def pair(self, maker: random.Random) -> tuple[str, str]:
        """One sentence and its translation."""
        subject, object_, verb = self._phrase(maker), self._phrase(maker), maker.choice(self.verbs)
        source, target = f"{subject[0]} {verb[0]} {object_[0]}", f"{subject[1]} {object_[1]} {verb[1]}"
        if maker.random() < 0.3:
            place = self._phrase(maker)
            source, target = f"{source} na {place[0]}", f"{place[1]} ed {target}"
        return f"{source}.", f"{target}."

    def _phrase(self, maker: random.Random) -> tuple[str, str]:
        source, target = maker.choice(self.nouns)
        if maker.random() < 0.3:
            source, target = f"{source}s", f"{target}im"
        if maker.random() < 0.4:
            adjective = maker.choice(self.adjectives)
            source, target = f"{adjective[0]} {source}", f"{target} {adjective[1]}"
        return source, target


def write_toy_corpora(folder: Path, train: int = 4000, held_out: int = 100, mono: int = 800) -> None:
    """Write train, dev, test (.en.zst, .de.zst) and mono corpora of the toy languages into a folder."""
    language, maker = ToyLanguage(), random.Random(1)
    seen: set[str] = set()

    def fresh() -> tuple[str, str]:
        while (pair := language.pair(maker))[0] in seen:
            pass
        seen.add(pair[0])
        return pair

    for name, count in (("test", held_out), ("dev", held_out), ("train", train)):
        with write_columns(folder / f"{name}.en.zst", folder / f"{name}.de.zst") as corpus:
            for _ in range(count):
                corpus.write(*fresh())
    for side, lang in enumerate(("en", "de")):
        with write_lines(folder / f"mono.{lang}.zst") as text:
            for _ in range(mono):
                text.write(fresh()[side])
