"""Typing errors: nine kinds, each at most once in a sentence, with the words of the result traced to the original's."""

import functools
import itertools
import random
import re
from collections.abc import Callable

# Of the keys, only the letters; each row of a keyboard is shifted to the right of the one above by half a key.
_KEYBOARDS = (
    ("qwertyuiop", "asdfghjkl", "zxcvbnm"),
    ("йцукенгшщзхъ", "фывапролджэ", "ячсмитьбю"),
    (";ςερτυθιοπ", "ασδφγηξκλ", "ζχψωβνμ"),
    ("/'קראטוןםפ", "שדגכעיחלךף", "זסבהנמצתץ"),
    ("ضصثقفغعهخحجد", "شسيبلاتنمكط", "ئءؤرىةوزظ"),
)
_KEYPAD = ("789", "456", "123")
_LOOK_ALIKE = (
    *("0OoDQ", "1lIi", "2Zz", "5Ss", "6bG", "8B3", "9gq", "4A", "7T", "mn", "uv", "ce", "VWU", "EF", "PR", "MN", "CG"),
    *("XY", "шщ", "ьъы", "нпи", "ЗЭ", "ου", "ην", "חהת", "רד", "וז", "بتثن", "جحخ"),
)
_WORD = re.compile(r"\w")
_NOT_FIRST = re.compile(r"(?<!^)\S")
_INNER_SPACE = re.compile(r"(?<=\S)\s(?=\S)")
_TWO_LETTERS = re.compile(r"(?=\w\w)")
_TWICE = re.compile(r"(\w)(?=\1)")

CHANCE_OF_EACH = 0.1


class Typist:
    """Text in which errors are made one after the other.

    `text` is the result; `origins` tells of each of its characters where the one that it comes from stood at first.
    An added character comes from the one it was typed beside; an added space from none, which is -1.
    """

    def __init__(self, text: str, rng: random.Random) -> None:
        self.text, self.rng = text, rng
        self.origins = list(range(len(text)))

    def _replace(self, start: int, end: int, by: str, origins: list[int]) -> None:
        self.text = self.text[:start] + by + self.text[end:]
        self.origins[start:end] = origins

    def _place(self, pattern: re.Pattern[str]) -> int | None:
        places = [match.start() for match in pattern.finditer(self.text)]
        return self.rng.choice(places) if places else None

    def swap(self) -> None:
        """Two characters in the wrong order; capitals stay where they were: Happy, Ahppy."""
        if (at := self._place(_TWO_LETTERS)) is not None:
            first, second = self.text[at], self.text[at + 1]
            pair = _cased(second, first) + _cased(first, second)
            if len(pair) == 2:
                self._replace(at, at + 2, pair, self.origins[at : at + 2][::-1])

    def drop(self) -> None:
        """A character is missing, but never the only one."""
        if (at := self._place(_WORD)) is not None and len(self.text.strip()) > 1:
            self._replace(at, at + 1, "", [])

    def add_neighbour(self) -> None:
        """A key beside the right one was hit as well."""
        if (at := self._place(_WORD)) is not None and (near := self._neighbour(self.text[at])):
            self._replace(at, at, near, [self.origins[at]])

    def hit_neighbour(self) -> None:
        """A key beside the right one was hit instead."""
        if (at := self._place(_WORD)) is not None and (near := self._neighbour(self.text[at])):
            self._replace(at, at + 1, near, [self.origins[at]])

    def look_alike(self) -> None:
        """A character is taken for one that looks like it."""
        if (at := self._place(_WORD)) is not None and (others := _look_alikes().get(self.text[at])):
            self._replace(at, at + 1, self.rng.choice(others), [self.origins[at]])

    def join(self) -> None:
        """A space is missing."""
        if (at := self._place(_INNER_SPACE)) is not None:
            self._replace(at, at + 1, "", [])

    def split(self) -> None:
        """A space too many."""
        if (at := self._place(_NOT_FIRST)) is not None:
            self._replace(at, at, " ", [-1])

    def repeat(self) -> None:
        """A character twice."""
        if (at := self._place(_WORD)) is not None:
            self._replace(at, at, self.text[at], [self.origins[at]])

    def unrepeat(self) -> None:
        """One of two like characters is missing."""
        if (at := self._place(_TWICE)) is not None:
            self._replace(at, at + 1, "", [])

    def _neighbour(self, character: str) -> str:
        near = _neighbours().get(character.lower())
        return _cased(self.rng.choice(near), character) if near else ""


ERRORS: tuple[Callable[[Typist], None], ...] = (
    Typist.swap,
    Typist.drop,
    Typist.add_neighbour,
    Typist.hit_neighbour,
    Typist.look_alike,
    Typist.join,
    Typist.split,
    Typist.repeat,
    Typist.unrepeat,
)


def misspell(text: str, rng: random.Random) -> tuple[str, list[int]]:
    """A text with each kind of error by a chance of one in ten (as OpusTrainer has it), and its characters' origins."""
    typist = Typist(text, rng)
    for make_error in ERRORS:
        if rng.random() < CHANCE_OF_EACH:
            make_error(typist)
    return typist.text, typist.origins


def _cased(character: str, like: str) -> str:
    return character.upper() if like.isupper() else character.lower()


@functools.cache
def _neighbours() -> dict[str, str]:
    """For each letter and digit the keys around it."""
    found: dict[str, str] = {}
    for rows, shift in [*((keyboard, 0.5) for keyboard in _KEYBOARDS), (_KEYPAD, 0.0)]:
        keys = [(key, x + shift * y, y) for y, row in enumerate(rows) for x, key in enumerate(row)]
        for (key, x, y), (other, other_x, other_y) in itertools.permutations(keys, 2):
            if key.isalnum() and other.isalnum() and abs(x - other_x) <= 1 and abs(y - other_y) <= 1:
                found[key] = found.get(key, "") + other
    found["0"] = "12"
    return found


@functools.cache
def _look_alikes() -> dict[str, str]:
    return {
        character: "".join(
            other for group in _LOOK_ALIKE if character in group for other in group if other != character
        )
        for character in set("".join(_LOOK_ALIKE))
    }
