import random
import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.common.alignments import parse_points
from pipeline.common.augment import typos
from pipeline.common.augment.augmenter import DEFAULTS, NO_AUGMENTATION, Augmentation, Augmenter, parse_augmentation
from pipeline.common.augment.modifiers import (
    Pair,
    add_typos,
    insert_noise,
    noise_pair,
    remove_end_punctuation,
    title_case,
    upper_case,
)
from pipeline.common.augment.script import script_of
from pipeline.common.augment.typos import Typist, misspell
from pipeline.common.errors import UserError
from pipeline.common.words import split_words

PAIR = Pair("The small house is old.", "Klein ist das alte Haus.", "0-2 1-0 2-4 3-1 4-3 5-5")
EN_DE = ("en", "de")


def linked(pair: Pair) -> Counter[tuple[str, str]]:
    """The words that a pair's points join."""
    src, trg = split_words(pair.src), split_words(pair.trg)
    return Counter((src[i], trg[j]) for i, j in parse_points(pair.points or ""))


def test_case_changes_on_both_sides() -> None:
    assert upper_case(PAIR, EN_DE)[:2] == ("THE SMALL HOUSE IS OLD.", "KLEIN IST DAS ALTE HAUS.")
    assert title_case(PAIR, EN_DE)[:2] == ("The Small House Is Old.", "Klein Ist Das Alte Haus.")
    assert title_case(Pair("a  (b) c-d ǆ", "x"), EN_DE).src == "A  (b) C-d ǅ"
    assert upper_case(PAIR, EN_DE).points == PAIR.points
    assert upper_case(Pair("istanbul ılık", "istanbul"), ("tr", "en"))[:2] == ("İSTANBUL ILIK", "ISTANBUL")
    assert title_case(Pair("ilk", "istanbul"), ("tr", "az_latn"))[:2] == ("İlk", "İstanbul")
    assert upper_case(Pair("weiß", "white", "0-0"), ("de", "en")) == ("WEISS", "WHITE", "0-0")


@pytest.mark.parametrize(
    ("src", "trg", "expected"),
    [
        ("Hello world .", "Hallo Welt.", ("Hello world", "Hallo Welt")),
        ("你好。", "Hello.", ("你好", "Hello")),
        ("What?", "Was؟", ("What", "Was")),
        ("Hello!", "Hallo.", None),  # not the same kind
        ("Hello...", "Hallo.", None),
        ("Hello . .", "Hallo.", None),
        (".", "Hallo.", None),  # nothing would be left
        ("", "", None),
    ],
)
def test_end_punctuation_goes_from_both_sides(src: str, trg: str, expected: tuple[str, str] | None) -> None:
    assert remove_end_punctuation(Pair(src, trg))[:2] == (expected or (src, trg))


def test_points_of_removed_punctuation_go_with_it() -> None:
    pair = remove_end_punctuation(PAIR._replace(points=PAIR.points + " 5-0 0-5"))
    assert linked(pair) == linked(PAIR) - Counter({(".", "."): 1})


@pytest.mark.parametrize(
    ("error", "text", "possible"),
    [
        (Typist.swap, "Happy", {"Ahppy", "Hpapy", "Happy", "Hapyp"}),
        (Typist.drop, "ab", {"a", "b"}),
        (Typist.drop, "a", {"a"}),
        (Typist.hit_neighbour, "Q", {"W", "A"}),
        (Typist.hit_neighbour, "日", {"日"}),
        (Typist.add_neighbour, "q", {"wq", "aq"}),
        (Typist.look_alike, "5", {"S", "s"}),
        (Typist.join, "a b c", {"ab c", "a bc"}),
        (Typist.join, "ab ", {"ab "}),
        (Typist.split, "abc", {"a bc", "ab c"}),
        (Typist.repeat, "ab", {"aab", "abb"}),
        (Typist.unrepeat, "happy noon", {"hapy noon", "happy non"}),
    ],
)
def test_each_typing_error(error: object, text: str, possible: set[str]) -> None:
    found = set()
    for seed in range(60):
        typist = Typist(text, random.Random(seed))
        error(typist)  # type: ignore[operator]
        found.add(typist.text)
        assert len(typist.origins) == len(typist.text)
    assert found == possible


def test_neighbours_are_those_of_the_keyboards() -> None:
    near = typos._neighbours()
    assert set(near["g"]) == set("fhtyvb") and set(near["п"]) == set("аренми") and set(near["5"]) == set("12346789")
    assert all(key in near[other] for key, others in near.items() for other in others if key != "0" and other in near)


def test_words_that_fall_apart_or_grow_together_keep_their_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typos, "CHANCE_OF_EACH", 1.0)
    pair = Pair("small house", "kleines Haus", "0-0 1-1")
    monkeypatch.setattr(typos, "ERRORS", (Typist.join,))
    assert add_typos(pair, random.Random(1)) == ("smallhouse", "kleines Haus", "0-0 0-1")
    monkeypatch.setattr(typos, "ERRORS", (Typist.split,))
    for seed in range(20):
        changed = add_typos(pair, random.Random(seed))
        assert "".join(changed.src.split()) == "smallhouse"
        assert {trg for _, trg in linked(changed)} == {"kleines", "Haus"}
        assert {src for src, trg in linked(changed) if trg == "Haus"} <= set(split_words(changed.src))
    monkeypatch.setattr(typos, "ERRORS", (Typist.drop,))
    changed = {add_typos(Pair("a b", "x y", "0-0 1-1"), random.Random(seed)) for seed in range(20)}
    assert changed == {Pair(" b", "x y", "0-1"), Pair("a ", "x y", "0-0")}


@given(st.text(alphabet="ab'- ß1.é日", max_size=15), st.integers(0, 1000))
def test_points_stay_inside_whatever_is_typed(text: str, seed: int) -> None:
    words = len(split_words(text))
    pair = add_typos(Pair(text, "x", " ".join(f"{n}-0" for n in range(words))), random.Random(seed))
    assert all(i < len(split_words(pair.src)) for i, _ in parse_points(pair.points or ""))
    spelt, origins = misspell(text, random.Random(seed))
    assert pair.src == spelt and len(origins) == len(spelt)


def test_inline_noise_stands_behind_aligned_words() -> None:
    for seed in range(200):
        changed = insert_noise(PAIR, [1, 2], random.Random(seed))
        added = linked(changed) - linked(PAIR)
        assert linked(PAIR) - linked(changed) == Counter()
        assert added and all(src == trg for src, trg in added)
        src, trg = split_words(changed.src), split_words(changed.trg)
        noise = [src[i] for i, j in parse_points(changed.points or "") if (src[i], trg[j]) in added]
        places = src.index("small"), trg.index("Klein")
        first = src[places[0] + 1]
        assert first in noise and trg[places[1] + 1] == first
        removed = [word for word in src if word not in noise]
        assert removed == split_words(PAIR.src) or any(word in split_words(PAIR.src) for word in noise)


def test_words_with_several_links_and_equal_words_take_no_noise() -> None:
    assert insert_noise(PAIR, [5], random.Random(1)) == PAIR  # both are a full stop
    several = Pair("not so", "nie", "0-0 1-0")
    assert insert_noise(several, [0, 1], random.Random(1)) == several


def test_lines_of_noise_are_the_same_on_both_sides() -> None:
    seen = set()
    for seed in range(300):
        src, trg, points = noise_pair(random.Random(seed), aligned=True)
        assert src == trg and 1 <= len(src.split()) <= 6
        assert {len(word) for word in src.split()} <= {2, 3, 4, 5}
        assert points == " ".join(f"{n}-{n}" for n in range(len(split_words(src))))
        assert not any(unicodedata.category(character)[0] in "CM" for character in src)
        seen.add(unicodedata.name(src[0]).split()[0])
    assert {"GREEK", "CYRILLIC", "CJK", "HANGUL"} < seen


@pytest.mark.parametrize(
    ("text", "name", "bicameral", "phonemic"),
    [
        ("Grüße 123 мир", "LATIN", True, True),
        ("Привет, world", "CYRILLIC", True, True),
        ("你好 OK", "CJK", False, False),
        ("東京タワーへ", "CJK", False, False),
        ("안녕하세요", "HANGUL", False, False),
        ("مرحبا", "ARABIC", False, True),
        ("नमस्ते", "DEVANAGARI", False, True),
        ("გამარჯობა", "GEORGIAN", True, True),
        ("123 !", "UNKNOWN", False, False),
    ],
)
def test_scripts(text: str, name: str, bicameral: bool, phonemic: bool) -> None:
    script = script_of([text])
    assert (script.name, script.phonemic) == (name, phonemic)
    if name != "GEORGIAN":  # Unicode has capitals for it, which sentences are not written with
        assert script.bicameral == bicameral


def test_changes_that_do_not_suit_the_script_are_not_made() -> None:
    chinese, arabic = script_of(["你好"]), script_of(["مرحبا"])
    assert DEFAULTS.for_script(chinese).to_yaml() == {"remove-end-punct": 0.2, "noise": 0.0005, "tags": 0.005}
    assert DEFAULTS.for_script(arabic).to_yaml().keys() == {"remove-end-punct", "typos", "noise", "tags"}
    assert DEFAULTS.for_script(script_of(["abc"])) == DEFAULTS


def test_changes_come_as_often_as_asked() -> None:
    rows = [(PAIR.src, PAIR.trg, PAIR.points or "")] * 20_000
    augmenter = Augmenter(Augmentation(upper_case=0.1, noise=0.02, tags=0.05), EN_DE)
    made = augmenter.augment(rows, random.Random(1))
    assert (len(made) - 20_000) / 20_000 == pytest.approx(0.02, abs=0.004)
    assert sum(row[0].isupper() and len(row[0]) == len(PAIR.src) for row in made) / 20_000 == pytest.approx(
        0.1 * 0.95**5, abs=0.008
    )
    tagged = sum(len(row[2].split()) > 6 and row[0].lower().startswith("the") for row in made)
    assert tagged / 20_000 == pytest.approx(1 - 0.95**5, abs=0.015)  # five of the six points can take noise
    assert made == augmenter.augment(rows, random.Random(1)) != augmenter.augment(rows, random.Random(2))
    assert Augmenter(NO_AUGMENTATION, EN_DE).augment(rows, random.Random(1)) == rows


def test_every_word_can_be_asked_for() -> None:
    (row,) = Augmenter(Augmentation(tags=1.0), EN_DE).augment(
        [(PAIR.src, PAIR.trg, PAIR.points or "")], random.Random(1)
    )
    assert len(row[0].split()) >= 10
    unaligned = Augmenter(Augmentation(tags=1.0), EN_DE).augment([PAIR[:2]], random.Random(1))
    assert unaligned == [PAIR[:2]]


def test_what_a_config_says() -> None:
    assert parse_augmentation("defaults") == DEFAULTS
    assert parse_augmentation("none") == parse_augmentation({}) == NO_AUGMENTATION
    assert parse_augmentation({"upper-case": 0.5, "typos": 1}) == Augmentation(upper_case=0.5, typos=1.0)
    assert not NO_AUGMENTATION and DEFAULTS


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("all", "'all' is not defaults, none"),
        ({"uper-case": 0.1}, "'uper-case' is not one of upper-case"),
        ({"typos": 1.5}, "chance of typos is a number between 0 and 1, not 1.5"),
        ({"typos": True}, "not True"),
        ({"typos": "0.1"}, "not '0.1'"),
    ],
)
def test_other_values_are_refused(value: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_augmentation(value)
