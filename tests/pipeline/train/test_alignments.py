import io
import re

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.common.errors import UserError
from pipeline.common.words import split_words
from pipeline.train.alignments import align_pieces, pieces_of_words

TEXTS = [
    "the small house is old",
    "das kleine Haus ist alt, größer",
    "eine Übung über Öfen",
    "日本語 fine",
    "abc def ghi jkl mno pqr",
]


@pytest.fixture(scope="module")
def processor() -> sentencepiece.SentencePieceProcessor:
    return make_processor()


def make_processor() -> sentencepiece.SentencePieceProcessor:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 5),
        model_writer=model,
        vocab_size=340,
        bos_id=-1,
        eos_id=0,
        unk_id=1,
        byte_fallback=True,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def encoded(processor: sentencepiece.SentencePieceProcessor, text: str) -> tuple[list[str], list[tuple[int, int]]]:
    result = processor.encode(text, return_type="offset_mapping")
    return result["pieces"], result["offsets"]


def words_of(processor: sentencepiece.SentencePieceProcessor, text: str) -> list[str]:
    """What the pieces of each word spell."""
    pieces, offsets = encoded(processor, text)
    spelt = []
    for pieces_of_word in pieces_of_words(text, offsets):
        spelt.append(processor.decode([pieces[index] for index in pieces_of_word]))
    return spelt


def test_pieces_spell_their_words(processor: sentencepiece.SentencePieceProcessor) -> None:
    text = "das kleine Haus,  größer 日本語 !"
    assert words_of(processor, text) == split_words(text)


def test_normalised_characters_keep_their_place(processor: sentencepiece.SentencePieceProcessor) -> None:
    # NFKC turns the ligature into two letters, the fraction into three, and full width into ASCII.
    assert words_of(processor, "ﬁne ½ old Ａｂｃ") == ["fine", "1⁄2", "old", "Abc"]
    # U+1F600 is four bytes and two UTF-16 units, but one character; its four byte pieces belong to one word.
    text = "old 😀 house"
    pieces, offsets = encoded(processor, text)
    old, smile, house = pieces_of_words(text, offsets)
    assert [pieces[index] for index in smile][-4:] == ["<0xF0>", "<0x9F>", "<0x98>", "<0x80>"]
    assert old.stop == smile.start and smile.stop == house.start and house.stop == len(pieces)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab é ﬁ½😀日,\u3000\u00a0ßÖ", max_size=20))
def test_every_piece_belongs_to_a_word_before_the_last_one_ends(text: str) -> None:
    processor = PROCESSOR
    pieces, offsets = encoded(processor, text)
    ranges = pieces_of_words(text, offsets)
    assert len(ranges) == len(split_words(text))
    covered = {index for pieces_of_word in ranges for index in pieces_of_word}
    assert all(index in covered for index, piece in enumerate(pieces) if re.search(r"\w", piece.strip("▁")))
    assert [r.start for r in ranges] == sorted(r.start for r in ranges)


def test_points_of_words_become_points_of_pieces() -> None:
    # "ab cd" as ▁a b ▁cd, "xyz w" as ▁xy z ▁w
    src_offsets, trg_offsets = [(0, 1), (1, 2), (2, 5)], [(0, 2), (2, 3), (3, 5)]
    cells = align_pieces("0-0 1-1", "ab cd", "xyz w", src_offsets, trg_offsets)
    assert cells == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2), (3, 3)]


def test_only_the_ends_are_aligned_when_there_are_no_points() -> None:
    assert align_pieces("", "ab cd", "x", [(0, 2), (2, 5)], [(0, 1)]) == [(2, 1)]


def test_pieces_that_were_cut_off_have_no_points() -> None:
    cells = align_pieces("0-0 1-1", "ab cd", "ab cd", [(0, 2)], [(0, 2)])
    assert cells == [(0, 0), (1, 1)]


@pytest.mark.parametrize(
    ("points", "message"),
    [("0-2", "belong to another corpus"), ("5-0", "outside"), ("0:1", "not an alignment point"), ("-1-0", "not an")],
)
def test_wrong_points_are_refused(points: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        align_pieces(points, "ab cd", "ab cd", [(0, 2), (2, 5)], [(0, 2), (2, 5)])


PROCESSOR = make_processor()
