"""Lists of hypotheses as text: `n ||| hypothesis ||| score`, sentences numbered from 0, best hypothesis first."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from pipeline.common.errors import UserError
from pipeline.common.files import read_lines

SEPARATOR = " ||| "


def format_hypothesis(number: int, text: str, score: float) -> str:
    """One line of a list."""
    return f"{number}{SEPARATOR}{text}{SEPARATOR}{score:.6f}"


def parse_hypothesis(line: str) -> tuple[int, str, float]:
    """Sentence number, hypothesis and score of a line; the hypothesis may itself hold the separator.

    Raises ValueError for other lines.
    """
    number, found, rest = line.partition(SEPARATOR)
    text, also_found, score = rest.rpartition(SEPARATOR)
    if not found or not also_found or not number.isdecimal():
        raise ValueError(f"not a line of an n-best list: {line[:80]!r}")
    return int(number), text, float(score)


def read_nbest(path: str | Path) -> Iterator[list[str]]:
    """Yield the hypotheses of each sentence in turn. Raises UserError when a line is none, or a sentence is missing."""

    def rows() -> Iterator[tuple[int, str]]:
        for line_number, line in enumerate(read_lines(path), start=1):
            try:
                number, text, _ = parse_hypothesis(line)
            except ValueError as error:
                raise UserError(f"{path}:{line_number}: {error}: expected `n ||| hypothesis ||| score`") from error
            yield number, text

    for expected, (number, group) in enumerate(groupby(rows(), key=lambda row: row[0])):
        if number != expected:
            raise UserError(f"{path}: the list of sentence {expected} is missing: that of {number} comes in its place")
        yield [text for _, text in group]
