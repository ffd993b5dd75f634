"""Alignments over tokens, brought over to words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.common.errors import UserError
from pipeline.common.words import split_words
from pipeline.continuation.alignments import word_links


def test_tokens_with_marked_spaces_are_the_words_between_them() -> None:
    texts = "The cat sat.", "Die Katze saß."
    tokens = "The ▁ cat ▁ sat .", "Die ▁ Katze ▁ saß ."
    assert word_links("0-0 2-2 4-4 5-5", texts, tokens) == "0-0 1-1 2-2 3-3"
    assert word_links("1-1 0-0", texts, tokens) == "0-0"  # a space is no word


def test_a_token_of_several_words_links_them_all_and_parts_of_one_link_it_once() -> None:
    texts = "e-mail now", "Rohrpost jetzt"
    assert word_links("0-0 0-1 1-2", texts, ("e-mail now", "Rohr post jetzt")) == "0-0 1-0 2-0 3-1"


def test_empty_sides_have_no_links() -> None:
    assert word_links("", ("", ""), ("", "")) == ""
    with pytest.raises(UserError, match="0 and 1 tokens"):
        word_links("0-0", ("", "x"), ("", "x"))


@pytest.mark.parametrize(
    ("links", "tokens", "said"),
    [
        ("0-0", ("a c", "x"), "the token 'c' is not what stands in the text there"),
        ("0-0", ("a", "x"), "the tokens end before the text does, at 'b'"),
        ("0-0", ("a b b", "x"), "the token 'b' is not what stands"),
        ("2-0", ("a b", "x"), "the link 2-0 leads out of sentences of 2 and 1 tokens"),
        ("0:0", ("a b", "x"), "'0:0' is not an alignment point"),
        ("0-", ("a b", "x"), "'0-' is not an alignment point"),
        ("0-0", ("a &amp; b", "x"), "belongs to other text, or changed it"),
    ],
)
def test_what_does_not_fit_is_said(links: str, tokens: tuple[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        word_links(links, ("a b", "x"), tokens)


SENTENCES = st.text(st.sampled_from("ab. 'ñ今\u0301"), max_size=12)


@given(SENTENCES, SENTENCES, st.data())
def test_own_words_as_tokens_change_no_link(src: str, trg: str, data: st.DataObject) -> None:
    words = split_words(src), split_words(trg)
    pairs = [(i, j) for i in range(len(words[0])) for j in range(len(words[1]))]
    chosen = sorted(data.draw(st.sets(st.sampled_from(pairs)))) if pairs else []
    links = " ".join(f"{i}-{j}" for i, j in chosen)
    assert word_links(links, (src, trg), (" ".join(words[0]), " ".join(words[1]))) == links


@given(SENTENCES)
def test_characters_as_tokens_reach_every_word(text: str) -> None:
    characters = [character for character in text if not character.isspace()]
    links = " ".join(f"{i}-0" for i in range(len(characters)))
    found = word_links(links, (text, "x"), (" ".join(characters), "x"))
    assert found == " ".join(f"{i}-0" for i in range(len(split_words(text))))
