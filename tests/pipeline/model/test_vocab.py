"""Text to ids and back."""

import io

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import VOCAB_SIZE, tiny_files, toy_pairs

from pipeline.common.errors import UserError
from pipeline.model.vocab import Vocab


@pytest.fixture(scope="module")
def vocab():
    return Vocab.load(tiny_files()[1])


def test_text_survives(vocab):
    texts = [source for source, _ in toy_pairs(50)]
    ids = vocab.encode(texts)
    assert all(sentence[-1] == vocab.eos_id == 0 for sentence in ids)
    assert vocab.decode(ids) == texts
    assert len(vocab) == VOCAB_SIZE
    assert vocab.pieces(texts[:1]) == [[vocab.all_pieces[number] for number in ids[0][:-1]]]


@given(st.lists(st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=20), max_size=3))
def test_any_ids_decode_to_single_lines(ids):
    texts = Vocab.load(tiny_files()[1]).decode(ids)
    assert len(texts) == len(ids)
    assert not any("\n" in text or "\r" in text for text in texts)


def test_a_line_end_spelt_in_bytes_becomes_a_space(vocab):
    line_end = vocab.all_pieces.index("<0x0A>")
    carriage_return = vocab.all_pieces.index("<0x0D>")
    word = vocab.encode(["ba"], add_eos=False)[0]
    assert vocab.decode([[*word, line_end], [*word, carriage_return, line_end]]) == ["ba ", "ba  "]


def test_empty_texts(vocab):
    assert vocab.encode([""]) == [[0]]
    assert vocab.encode([]) == [] == vocab.decode([])
    assert vocab.decode([[]]) == [""]


def test_sampling_varies_the_segmentation_but_not_the_text(vocab):
    text = toy_pairs(1)[0][0]
    drawn = {tuple(vocab.encode([text], sampling_alpha=0.1)[0]) for _ in range(30)}
    assert len(drawn) > 1
    assert set(vocab.decode([list(ids) for ids in drawn])) == {text}


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        Vocab.load(tmp_path / "absent.spm")
    (tmp_path / "text.spm").write_text("not a model")
    with pytest.raises(UserError, match="not a SentencePiece model"):
        Vocab.load(tmp_path / "text.spm")


def test_other_special_ids_are_refused(tmp_path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text for pair in toy_pairs(200) for text in pair),
        model_writer=model,
        vocab_size=100,
        minloglevel=2,
    )
    (tmp_path / "default.spm").write_bytes(model.getvalue())
    with pytest.raises(UserError, match="eos_id=0"):
        Vocab.load(tmp_path / "default.spm")
