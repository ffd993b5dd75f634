"""Directories of Marian and OPUS-MT, and zip files of them."""

import logging
import shutil
import zipfile

import numpy as np
import pytest
import torch
import yaml
from opus_model import MISSING, TAGS, write_opus_model
from tiny_model import padded, tiny_files, tiny_model, toy_pairs, trained_model

from pipeline.common.errors import UserError
from pipeline.model.formats import marian, npz
from pipeline.model.parity import TorchEngine, random_sample
from pipeline.model.vocab import Vocab

TEXTS = [
    *(source for source, _ in toy_pairs(60, seed=5)),
    *(f"{tag} {source}" for tag in TAGS for source, _ in toy_pairs(5, seed=6)),
    "  bako   taru\tmine ünknöwn 😀  ",
]


@pytest.fixture(scope="module")
def opus(tmp_path_factory):
    return write_opus_model(tmp_path_factory.mktemp("opus") / "opus-2020-02-26")


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory):
    return write_opus_model(tmp_path_factory.mktemp("opus") / "model", eos_first=False)


def vocabs_of(path, folder):
    return [Vocab.load(vocab) for vocab in marian.write_vocabs(path, folder)]


@pytest.mark.parametrize("name", ["opus", "shuffled"])
def test_what_is_read_computes_what_marian_does(name, request, tmp_path):
    opus = request.getfixturevalue(name)
    model, (source, target) = marian.load(opus.path), vocabs_of(opus.path, tmp_path)
    assert model.config.dim_vocabs == (len(source), len(target))
    ours = source.encode(TEXTS, add_eos=False)
    theirs = [opus.marians_ids(0, text) for text in TEXTS]
    unk, eos = opus.listed.index("<unk>"), opus.listed.index("</s>")
    assert any(unk in row for row in theirs), "pieces that the list lacks are among the texts"
    targets = [trg for _, trg in toy_pairs(len(TEXTS), seed=5)]

    # The same text gets the same hidden states, whatever its ids are.
    src, mask = padded([[*row, 0] for row in ours])
    original, original_mask = padded([[*row, eos] for row in theirs])
    assert torch.equal(mask, original_mask)
    assert torch.equal(model.encode(src, mask)[mask], opus.model.encode(original, original_mask)[mask])
    # And a target without unknown pieces the same log-probabilities.
    known = [n for n, text in enumerate(targets) if unk not in opus.marians_ids(1, text)]
    assert len(known) > 10
    rows = [target.encode([targets[n]])[0] for n in known], [[*opus.marians_ids(1, targets[n]), eos] for n in known]
    scores = []
    for one, ids, batch, row_mask in ((model, rows[0], src, mask), (opus.model, rows[1], original, original_mask)):
        trg, trg_mask = padded(ids)
        log_probs = one(batch[known], row_mask[known], trg)[0].log_softmax(-1).gather(2, trg.unsqueeze(-1)).squeeze(-1)
        scores.append(log_probs[trg_mask])
    assert (scores[0] - scores[1]).abs().max() < 1e-5


def test_how_many_sentences_get_marians_ids(opus, tmp_path):
    marian.write_vocabs(opus.path, tmp_path)
    assert marian.same_segmentation(opus.path, TEXTS) == len(TEXTS)
    # Its SentencePiece model does not know 1, but the joint list does.
    assert opus.marians_ids(0, "bako 1")[-1] == opus.listed.index("1")
    assert marian.same_segmentation(opus.path, [*TEXTS, "bako 1"]) == len(TEXTS)


def test_tags_are_whole_pieces_that_nothing_precedes(opus, tmp_path):
    source, target = vocabs_of(opus.path, tmp_path)
    pieces = source.pieces([f"{TAGS[1]} bako"])[0]
    assert pieces[0] == f"▁{TAGS[1]}" and pieces[1].startswith("▁")
    tag_row = opus.listed.index(TAGS[1])
    assert source.encode([f"{TAGS[1]} bako"])[0][0] == tag_row
    assert target.decode([[tag_row]]) == [TAGS[1]]


def test_pieces_without_a_row_get_one_that_is_never_translated_to(opus, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        model = marian.load(opus.path)
    added = model.config.dim_vocabs[0] - len(opus.listed)
    assert added == 2 * MISSING and f"{added} pieces of the SentencePiece models are not in" in caplog.text
    for row in range(len(opus.listed), len(opus.listed) + added):
        assert torch.equal(model.Wemb[row], model.Wemb[1])
        assert model.decoder_ff_logit_out_b[0, row] == model.decoder_ff_logit_out_b[0, 1] - 20
    found = TorchEngine(model).translate(random_sample(len(opus.listed)).sources, 4)
    assert max(piece for row in found for piece in row) < len(opus.listed)


def test_a_model_without_output_bias_gets_one_for_rows_that_are_added(tmp_path):
    opus = write_opus_model(tmp_path / "model", output_omit_bias=True)
    model = marian.load(opus.path)
    assert not model.config.output_omit_bias
    bias = model.decoder_ff_logit_out_b.detach()[0]
    assert not bias[: len(opus.listed)].any() and bias[-1] == -20


@pytest.mark.parametrize("prefix", ["", "opus-2020-02-26/"])
def test_a_zip_file_is_read_without_being_unpacked(opus, tmp_path, prefix):
    path = tmp_path / "opus-2020-02-26.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for source in opus.path.iterdir():
            file.write(source, prefix + source.name)
        file.writestr("../../escaped.yml", "vocabs: []")
        file.writestr("/escaped.spm", "")
    (tmp_path / "out").mkdir()
    model, unpacked = marian.load(path), marian.load(opus.path)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), unpacked.parameters(), strict=True))
    marian.write_vocabs(path, tmp_path / "out")
    assert sorted(file.name for file in tmp_path.rglob("*")) == [path.name, "out", "source.spm", "target.spm"]


def test_a_directory_written_here_is_read_bit_by_bit(tmp_path):
    vocab, model = tiny_files()[1], tiny_model()
    marian.save(model, tmp_path / "model", (vocab, vocab), sample=random_sample(400))
    again = marian.load(tmp_path / "model")
    assert again.config == model.config
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), again.parameters(), strict=True))
    written = marian.write_vocabs(tmp_path / "model", tmp_path)
    assert [path.read_bytes() for path in written] == [vocab.read_bytes()] * 2
    marian.save(again, tmp_path / "again", written, like=marian.load_weights(tmp_path / "model"))
    for name in ("model.npz", "source.spm", "target.spm", "decoder.yml"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


def test_one_of_several_models_of_a_training_directory(tmp_path):
    vocab = tiny_files()[1]
    for name, seed in (("model.npz", 1), ("final.model.npz.best-chrf.npz", 2)):
        npz.save(tiny_model(seed), tmp_path / name)
        for language in ("en", "de"):
            shutil.copyfile(vocab, tmp_path / f"vocab.{language}.spm")
        decoder = {"relative-paths": True, "models": [name], "vocabs": ["vocab.en.spm", "vocab.de.spm"]}
        (tmp_path / f"{name}.decoder.yml").write_text(yaml.safe_dump(decoder))
    model = marian.load(tmp_path / "final.model.npz.best-chrf.npz")
    assert torch.equal(model.Wemb, tiny_model(2).Wemb)
    with pytest.raises(UserError, match=r"several \*\.decoder\.yml"):
        marian.load(tmp_path)


def copied(opus, tmp_path):
    shutil.copytree(opus.path, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: (path / "source.spm").unlink(), "no source.spm beside opus"),
        (lambda path: (path / "target.spm").write_text("text"), "is not a SentencePiece model"),
        (lambda path: next(path.glob("*.vocab.yml")).write_text("- a\n- b\n"), "must be a mapping"),
        (lambda path: next(path.glob("*.vocab.yml")).write_text("a: [1"), "is not sound"),
        (lambda path: next(path.glob("*.vocab.yml")).write_text("</s>: 0\n<unk>: 2\n"), "row 2 .* where row 1 is due"),
        (
            lambda path: next(path.glob("*.vocab.yml")).write_text("</s>: 0\n<unk>: 1\n"),
            "lists 2 pieces, but the model",
        ),
        (lambda path: next(path.glob("*.vocab.yml")).write_text("a: 0\nb: 1\n"), "has no piece </s>"),
        (lambda path: next(path.glob("*.vocab.yml")).write_text("</s>: zero\n"), "must map pieces to row numbers"),
        (lambda path: next(path.glob("*.npz")).unlink(), "has no file opus"),
        (lambda path: (path / "decoder.yml").write_text("models: [a.npz, b.npz]\nvocabs: [a, b]"), "ensemble of 2"),
        (lambda path: (path / "decoder.yml").write_text("models: [a.npz]\nvocabs: [a.spm]"), "has 1 vocabularies"),
    ],
)
def test_parts_that_are_missing_or_damaged(opus, tmp_path, change, message):
    path = copied(opus, tmp_path)
    change(path)
    with pytest.raises(UserError, match=message):
        marian.load(path)


def test_other_files(tmp_path):
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(UserError, match="neither a directory nor a sound zip file"):
        marian.load(tmp_path / "bad.zip")
    with pytest.raises(UserError, match="does not exist"):
        marian.load(tmp_path / "absent.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is not a model"):
        marian.load(tmp_path / "empty")


def test_a_damaged_zip_file_leaves_nothing(opus, tmp_path):
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for source in opus.path.iterdir():
            file.write(source, source.name)
    content = bytearray(path.read_bytes())
    content[content.index(b"\x93NUMPY") + 500] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read|not a sound"):
        marian.load(path)


def test_weights_of_marian_keep_their_form(tmp_path):
    model = trained_model(tied_embeddings_all=False)
    npz.save(model, tmp_path / "model.npz")
    arrays = npz.load_arrays(tmp_path / "model.npz")
    arrays["decoder_ff_logit_out_Wt"] = np.ascontiguousarray(arrays.pop("decoder_ff_logit_out_W").T)
    arrays["decoder_ff_logit_out_b"] = arrays["decoder_ff_logit_out_b"].ravel()
    text = (
        arrays["special:model.yml"].tobytes().rstrip(b"\0").replace(b"limbeck", b"1234567") + b"made-by: them\n\0\0\0"
    )
    arrays["special:model.yml"] = np.frombuffer(text, np.int8)
    np.savez(tmp_path / "theirs.npz", **arrays)
    npz.save(npz.load(tmp_path / "theirs.npz"), tmp_path / "again.npz", like=npz.load_arrays(tmp_path / "theirs.npz"))
    again = npz.load_arrays(tmp_path / "again.npz")
    assert again.keys() == arrays.keys()
    for name, array in again.items():
        assert array.shape == arrays[name].shape and array.tobytes() == arrays[name].tobytes(), name
    with pytest.raises(UserError, match="another architecture"):
        npz.save(tiny_model(), tmp_path / "other.npz", like=arrays)
