"""What can be done to a sentence pair: case, end punctuation, typing errors and words of noise, with its alignment.

Behaviour follows OpusTrainer 0.5 (Nail et al.), whose modifiers the field trains with. Alignments are points over the
words of `pipeline.common.words`; a pair without them has None.
"""

import random
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pipeline.common.alignments import parse_points
from pipeline.common.augment.noise import random_words
from pipeline.common.augment.typos import misspell
from pipeline.common.words import word_spans

_FIRST_LETTER = re.compile(r"(?<!\S)\S")
_DOTTED_LANGUAGES = frozenset({"tr", "az", "crh"})
_DOTS = str.maketrans("iı", "İI")

# Marks that end sentences, and those of other scripts that mean the same.
_ENDS = (
    ".．｡。﹒︒।॥۔။።։",
    "!！﹗︕‼❢❣՜",
    "?？﹖︖؟;՞፧⁇⁈⁉",
    ",，､﹐︐、﹑︑،၊՝",
    ":：﹕︓፥፦·",
    ";；﹔︔؛፤",
    "…⋯︙",
)
_KIND_OF_END = {mark: kind for kind, marks in enumerate(_ENDS) for mark in marks}

Points = list[tuple[int, int]]


class Pair(NamedTuple):
    """A sentence pair: its texts, and its alignment as Pharaoh's `i-j i-j …` where there is one."""

    src: str
    trg: str
    points: str | None = None


def upper_case(pair: Pair, languages: tuple[str, str]) -> Pair:
    """Both sides in capitals; in the languages with a dotless i, i is not its small letter."""
    return _recased(pair, languages, str.upper)


def title_case(pair: Pair, languages: tuple[str, str]) -> Pair:
    """Both sides With Every Word Beginning Like This; the other letters stay."""
    return _recased(pair, languages, str.title, _FIRST_LETTER)


def remove_end_punctuation(pair: Pair) -> Pair:
    """Without the mark that ends both sides, if it means the same on both, stands alone, and leaves some text."""
    src, trg, points = pair
    if not src or not trg or _KIND_OF_END.get(src[-1], -1) != _KIND_OF_END.get(trg[-1], -2):
        return pair
    new_src, new_trg = src[:-1].rstrip(), trg[:-1].rstrip()
    if not new_src or not new_trg or new_src[-1] in _KIND_OF_END or new_trg[-1] in _KIND_OF_END:
        return pair
    if points:
        ends = len(word_spans(src)) - 1, len(word_spans(trg)) - 1
        points = format_points([(i, j) for i, j in parse_points(points) if i != ends[0] and j != ends[1]])
    return Pair(new_src, new_trg, points)


def add_typos(pair: Pair, rng: random.Random) -> Pair:
    """Typing errors in the source; a word that falls apart or grows together with another keeps its points."""
    text, origins = misspell(pair.src, rng)
    if not pair.points or text == pair.src:
        return pair._replace(src=text)
    old_words = {at: word for word, (begin, end) in enumerate(word_spans(pair.src)) for at in range(begin, end)}
    new_words: dict[int, list[int]] = {}
    for word, (begin, end) in enumerate(word_spans(text)):
        for old in {old_words[at] for at in origins[begin:end] if at in old_words}:
            new_words.setdefault(old, []).append(word)
    points = [(new, j) for i, j in parse_points(pair.points) for new in new_words.get(i, ())]
    return Pair(text, pair.trg, format_points(points))


def noise_pair(rng: random.Random, aligned: bool) -> Pair:
    """A pair of nothing but the same one to six words of noise on both sides, aligned word by word."""
    text = " ".join(random_words(rng, 2, 5, 6))
    return Pair(text, text, format_points([(n, n) for n in range(len(word_spans(text)))]) if aligned else None)


def insert_noise(pair: Pair, chosen: Sequence[int], rng: random.Random) -> Pair:
    """The pair with one to three words of noise behind the aligned words of the points with these numbers, the same on
    both sides and aligned with each other.

    Points whose words are aligned with others too, or are the same on both sides, are passed over.
    """
    points = parse_points(pair.points or "")
    src_spans, trg_spans = word_spans(pair.src), word_spans(pair.trg)
    insertions: list[tuple[int, int, str]] = []
    for i, j in (points[number] for number in chosen):
        alone = sum(i == other for other, _ in points) == sum(j == other for _, other in points) == 1
        if alone and pair.src[slice(*src_spans[i])] != pair.trg[slice(*trg_spans[j])]:
            insertions.append((i, j, " ".join(random_words(rng, 2, 10, 3))))
    if not insertions:
        return pair
    counts = [(i, j, len(word_spans(noise))) for i, j, noise in insertions]

    def moved(i: int, j: int) -> tuple[int, int]:
        """Where words stand behind the insertions before them."""
        return i + sum(n for at, _, n in counts if at < i), j + sum(n for _, at, n in counts if at < j)

    result = [moved(i, j) for i, j in points]
    for i, j, count in counts:
        new_i, new_j = moved(i, j)
        result += [(new_i + n, new_j + n) for n in range(1, count + 1)]
    return Pair(
        _inserted(pair.src, [(src_spans[i][1], noise) for i, _, noise in insertions]),
        _inserted(pair.trg, [(trg_spans[j][1], noise) for _, j, noise in insertions]),
        format_points(result),
    )


def format_points(points: Points) -> str:
    """Points in Pharaoh's format."""
    return " ".join(f"{i}-{j}" for i, j in sorted(set(points)))


def _inserted(text: str, insertions: list[tuple[int, str]]) -> str:
    for at, noise in sorted(insertions, reverse=True):  # from the end, so that the other places stay
        space = "" if at == len(text) or text[at].isspace() else " "
        text = f"{text[:at]} {noise}{space}{text[at:]}"
    return text


def _recased(
    pair: Pair, languages: tuple[str, str], change: Callable[[str], str], pattern: re.Pattern[str] | None = None
) -> Pair:
    """The pair with `change` made to all of its text, or to what matches a pattern."""

    def recase(text: str, language: str) -> str:
        def recase_part(part: str) -> str:
            return change(part.translate(_DOTS) if language.split("_")[0] in _DOTTED_LANGUAGES else part)

        return pattern.sub(lambda match: recase_part(match[0]), text) if pattern else recase_part(text)

    src, trg = recase(pair.src, languages[0]), recase(pair.trg, languages[1])
    # A character whose capital is several ones could make another number of words: then points would be wrong.
    changed = [(old, new) for old, new in ((pair.src, src), (pair.trg, trg)) if len(old) != len(new)]
    if pair.points and any(len(word_spans(old)) != len(word_spans(new)) for old, new in changed):
        return pair
    return Pair(src, trg, pair.points)
