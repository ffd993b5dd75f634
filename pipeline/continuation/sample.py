"""Whether a text is in the language that it is given as: a glance at a sample of its lines."""

import random

from pipeline.common.errors import UserError
from pipeline.common.identify import LanguageJudge

_SIZE = 400  # lines
_SHORTEST = 20  # characters: shorter lines are claimed by any language
_FEWEST = 50  # lines, below which nothing is said
_EXPECTED = 0.5  # share of lines; clean corpora of close languages have more than 0.8


class LanguageSample:
    """An even sample of a text's longer lines (reservoir sampling, Vitter 1985, algorithm R), the same every time."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._lines: list[str] = []
        self._seen = 0
        self._random = random.Random(1)

    def add(self, line: str) -> None:
        if len(line) < _SHORTEST:
            return
        self._seen += 1
        if len(self._lines) < _SIZE:
            self._lines.append(line)
        elif (place := int(self._random.random() * self._seen)) < _SIZE:
            self._lines[place] = line

    def warning(self, other_language: str | None = None) -> str | None:
        """A sentence when the sample does not look like its language; None when it does, or nobody can tell."""
        if len(self._lines) < _FEWEST:
            return None
        share = self._share(self.language)
        if share is None or share >= _EXPECTED:
            return None
        warning = f"only {share:.0%} of {len(self._lines)} sampled lines look like {self.language!r}"
        other = self._share(other_language) if other_language else None
        if other is not None and other > max(share, _EXPECTED):
            return f"{warning}, but {other:.0%} like {other_language!r}: are the two sides swapped?"
        return f"{warning}: is it the right file?"

    def _share(self, language: str) -> float | None:
        try:
            judge = LanguageJudge(language)
        except UserError:
            return None
        return sum(judge.expected(line) for line in self._lines) / len(self._lines)
