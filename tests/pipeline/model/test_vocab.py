"""Text to ids and back."""

import io

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2
from tiny_model import VOCAB_SIZE, tiny_files, toy_pairs

from pipeline.common.errors import UserError
from pipeline.model.vocab import Vocab, check_same_pieces, check_tag, load_same, with_prefix


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


def test_vocabularies_of_one_ensemble_are_the_same(tmp_path, vocab):
    path = tiny_files()[1]
    assert load_same([path]).all_pieces == load_same([path, path]).all_pieces == vocab.all_pieces
    shorter = tmp_path / "shorter.spm"
    proto = sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes())
    del proto.pieces[-1]
    shorter.write_bytes(proto.SerializeToString())
    said = rf"shorter.spm \({VOCAB_SIZE - 1} pieces\) is not .* \({VOCAB_SIZE}\): the first difference is piece "
    with pytest.raises(UserError, match=said + rf"{VOCAB_SIZE - 1}, 'nothing' there and .* here; the models of an"):
        load_same([path, shorter])
    proto.pieces[300].piece = "other"
    shorter.write_bytes(proto.SerializeToString())
    with pytest.raises(UserError, match=r"one .* is not two .* is piece 300, 'other' there and .* here; because"):
        check_same_pieces(Vocab.load(shorter), vocab, "one", "two", "because")


def test_prefixes():
    assert with_prefix(["a b", "", "  "], " >>deu<< ") == [">>deu<< a b", "", "  "]
    assert with_prefix(["a"], "") == ["a"]
    check_tag("translate:", ["a"], "vocab")
    check_tag(">>deu<<", ["a", "▁>>deu<<"], "vocab")
    with pytest.raises(UserError, match="vocab has no tag >>due<<: the nearest are >>deu<<"):
        check_tag(">>due<<", ["a", "▁>>deu<<"], "vocab")
    with pytest.raises(UserError, match="it has none"):
        check_tag(">>deu<<", ["a"], "vocab")
