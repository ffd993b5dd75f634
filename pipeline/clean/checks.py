"""The rules applied to normalised text: one fused pass per side, then the comparisons of the two sides.

Every check first asks something that is cheap and nearly always settles it (a byte-wise `translate`, a count, a set),
and only then the exact question, so most lines never meet a regular expression.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Mapping
from operator import eq

from pipeline.clean.normalise import is_damaged
from pipeline.clean.rules import Rules, Threshold, rules_for
from pipeline.common.identify import LanguageJudge
from pipeline.common.languages import character_weight, is_latin, is_unspaced, not_letters
from pipeline.common.words import UNSPACED, split_words

LENGTH_SLACK = 15  # characters added to both sides before lengths are compared
LONGEST_PHRASE = 10  # words of the longest phrase whose repetition is looked for
SIMILAR_FROM = 5  # words of a side from which on a high overlap makes it a copy
COPY_FROM = 2  # words from which on equal sides are a copy: "OK" and "Version" are translations
SURE_FROM = 6  # words from which on the margin of language identification is enough; it grows as 1/words below

_NOT_ASCII_LETTERS = bytes(set(range(256)) - set((string.ascii_letters + " ").encode()))
_NOT_ASCII_DIGITS = bytes(set(range(256)) - set(string.digits.encode()))
_DIGITS = re.compile(r"\d+")
_SPACED_RUN = re.compile(rf"[^\s{UNSPACED}]+")
_URL = re.compile(r"\b(?:https?://|ftp://|www\.)\w", re.IGNORECASE)
_MARKUP = re.compile(r"<[^<>]*>|\{[^{}]*\}|%[\d$.*+-]*(?:\([^()]*\))?\w+|&\w+;|\\\w|\S*[\d_@\\]\S*")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]*\w")


class SideCheck:
    """The rules that look at one side alone."""

    def __init__(self, language: str, rules: Rules) -> None:
        self.rules = rules
        self.unspaced = is_unspaced(language)
        self.weight = character_weight(language)
        self._not_letters = not_letters(language)
        self._max_words = rules.max_words or float("inf")
        self._max_word_length = rules.max_word_length or float("inf")
        self._repeats = rules.repeated_text or float("inf")
        self._other_script = not self.unspaced and not is_latin(language)
        self._judge = LanguageJudge(language) if rules.language else None
        self._margin = float(rules.language)

    def words(self, text: str) -> list[str]:
        """Words between spaces, or characters where the script has no spaces."""
        return split_words(text) if self.unspaced else text.split(" ")

    def fault(self, text: str) -> str | None:
        """The name of the first rule, language identification aside, that the text breaks."""
        rules = self.rules
        if not text:
            return "empty" if rules.empty else None
        if rules.mojibake and is_damaged(text):
            return "mojibake"
        words = self.words(text)
        count = len(words)
        if count > self._max_words:
            return "max-words"
        if len(text) > self._max_word_length:
            longest = max(map(len, _SPACED_RUN.findall(text) if self.unspaced else words), default=0)
            if longest > self._max_word_length:
                return "max-word-length"
        spaces = text.count(" ")
        ascii_letters = text.encode().translate(None, _NOT_ASCII_LETTERS)
        enough_letters = rules.alphabetic_characters * (len(text) - spaces)
        enough_words = rules.alphabetic_words * count
        # ASCII letters alone are a lower bound, and settle nearly all lines of Latin script.
        if len(ascii_letters) - spaces < enough_letters or len(ascii_letters.split()) < enough_words:
            letters = self._not_letters.sub("", text)
            if len(split_words(letters) if self.unspaced else letters.split()) < enough_words:
                return "alphabetic-words"
            if len(letters) - spaces < enough_letters:
                return "alphabetic-characters"
        if count >= self._repeats and count - len(set(words)) >= self._repeats - 1 and self._repeated(words):
            return "repeated-text"
        return None

    def wrong_language(self, text: str) -> bool:
        """Whether a text of two words or more is clearly in another language: the shorter it is, the clearer."""
        if self._judge is None or (" " not in text and not self.unspaced):
            return False
        if self._judge.expected(text):
            return False
        # A second look without what belongs to no language: is there enough left, and is it still foreign?
        words = [word for word in _MARKUP.sub(" ", text).split() if len(word) > 1]
        if self._other_script:  # Latin names and code inside Russian or Greek say nothing, unless there is little else
            own = [word for word in words if not word.isascii()]
            if 2 * sum(map(len, own)) >= sum(map(len, words)):
                words = own
        size = sum(map(len, words)) // 2 if self.unspaced else len(words)
        if size < 2:
            return False
        rest = " ".join(words)
        if self._judge.expected(rest):
            return False
        return self._judge.excess(rest) > self._margin * max(1, SURE_FROM / size)

    def _repeated(self, words: list[str]) -> bool:
        times = int(self._repeats)
        words = [word.casefold() for word in words]
        if max(Counter(words).values()) < times:
            return False
        for length in range(1, min(LONGEST_PHRASE, len(words) // times) + 1):
            same = bytes(map(eq, words[length:], words))  # 1 where a word equals the one `length` before it
            if b"\x01" * (length * (times - 1)) in same:
                return True
        return False


class PairCheck:
    """All the rules for a sentence pair."""

    def __init__(self, src: str, trg: str, overrides: Mapping[str, Threshold]) -> None:
        self.src = SideCheck(src, rules_for(src, overrides))
        self.trg = SideCheck(trg, rules_for(trg, overrides))
        self.rules = self.src.rules  # pair rules have no defaults of their own per language

    def fault(self, src: str, trg: str) -> str | None:
        """The name of the first rule that a normalised pair breaks, or None."""
        return (
            self.src.fault(src)
            or self.trg.fault(trg)
            or self._pair_fault(src, trg)
            or ("language" if self.src.wrong_language(src) or self.trg.wrong_language(trg) else None)
        )

    def _pair_fault(self, src: str, trg: str) -> str | None:
        rules = self.rules
        if rules.length_ratio:
            src_length = len(src) * self.src.weight + LENGTH_SLACK
            trg_length = len(trg) * self.trg.weight + LENGTH_SLACK
            if src_length > rules.length_ratio * trg_length or trg_length > rules.length_ratio * src_length:
                return "length-ratio"
        if rules.number_mismatch and _numbers_differ(src, trg, rules.number_mismatch):
            return "number-mismatch"
        if rules.url_mismatch and _addresses_differ(src, trg):
            return "url-mismatch"
        if rules.copied_text and self._copied(src, trg, rules.copied_text):
            return "copied-text"
        return None

    def _copied(self, src: str, trg: str, share: float) -> bool:
        words = src.count(" ") + 1
        if src == trg or (len(src) == len(trg) and src.casefold() == trg.casefold()):
            return words >= COPY_FROM or (self.src.unspaced and len(self.src.words(src)) >= COPY_FROM)
        if words < SIMILAR_FROM:
            return False
        src_words, trg_words = set(src.split(" ")), set(trg.split(" "))
        larger = max(len(src_words), len(trg_words))
        return larger >= SIMILAR_FROM and len(src_words & trg_words) >= share * larger


def _numbers_differ(src: str, trg: str, share: float) -> bool:
    src_digits = src.encode().translate(None, _NOT_ASCII_DIGITS)
    trg_digits = trg.encode().translate(None, _NOT_ASCII_DIGITS)
    if src_digits == trg_digits or sorted(src_digits) == sorted(trg_digits):
        return False
    src_numbers, trg_numbers = _numbers(src), _numbers(trg)
    # "8 pm" is "20 Uhr" and "ten dollars" are "10 Dollar", but nobody spells out 2013.
    shortest = 2 if src_numbers and trg_numbers else 3
    total = sum(len(number) >= shortest for number in src_numbers + trg_numbers)
    return total > 0 and 2 * (Counter(src_numbers) & Counter(trg_numbers)).total() < share * total


def _numbers(text: str) -> list[str]:
    """Runs of two or more digits of any script, in ASCII digits."""
    runs = (run for run in _DIGITS.findall(text) if len(run) > 1)
    return ["".join(str(unicodedata.digit(char)) for char in run) for run in runs]


def _addresses_differ(src: str, trg: str) -> bool:
    if ("://" in src or "://" in trg or "www." in src or "www." in trg) and (
        len(_URL.findall(src)) != len(_URL.findall(trg))
    ):
        return True
    return ("@" in src or "@" in trg) and len(_EMAIL.findall(src)) != len(_EMAIL.findall(trg))
