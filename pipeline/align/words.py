"""The words of a corpus, numbered for counting."""

import unicodedata
from typing import Self

from pipeline.common.words import split_words


class Words:
    """Numbers words as they come. Words that differ only in case or in their Unicode form are one."""

    complete = False

    def __init__(self) -> None:
        self.forms: dict[str, int] = {}  # of the normal forms, in the order of their ids
        self._written = _Lookup(self.forms)

    def __len__(self) -> int:
        return len(self.forms)

    def encode(self, lines: list[str]) -> list[list[int]]:
        """The ids of each line's words (as `pipeline.common.words` splits them), new words getting new ids."""
        written = self._written
        return [[written[word] for word in split_words(line)] for line in lines]

    def id(self, form: str) -> int:
        """The id of a word in its normal form."""
        return self.forms.setdefault(form, len(self.forms))

    def fresh(self) -> Self:
        copy = type(self)()
        copy.forms.update(self.forms)
        copy._written.update(self._written)
        return copy


class _Lookup(dict[str, int]):
    """Words as written to ids, so that each written form is brought to its normal form once."""

    def __init__(self, forms: dict[str, int]) -> None:
        super().__init__()
        self.forms = forms

    def __missing__(self, word: str) -> int:
        form = unicodedata.normalize("NFC", word.casefold())
        number = self[word] = self.forms.setdefault(form, len(self.forms))
        return number
