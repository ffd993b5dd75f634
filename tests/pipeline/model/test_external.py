"""Folders of other makers' models: text to ids and back, and what stands around the pieces."""

import itertools
import json
import shutil

import pytest
from external_models import SOURCES, TARGETS, published

from pipeline.common.errors import UserError
from pipeline.continuation.external import Languages, import_model
from pipeline.model import external
from pipeline.model.decoding import DecodingOptions, Sampling


@pytest.fixture(autouse=True)
def one_processor(monkeypatch):
    monkeypatch.setenv("LIMBECK_CPUS", "1")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One folder with SentencePiece models and a tag, one with a tokenizer of transformers and language tokens."""
    made = {}
    for family, languages in (
        ("marian-tags", (None, "deu")),
        ("nllb", ("eng_Latn", "deu_Latn")),
        ("mt5", (None, None)),
    ):
        made[family] = tmp_path_factory.mktemp("external") / family
        import_model(str(published(family)), "huggingface", None, Languages(*languages), made[family])
    return made


def translations(model, texts):
    return [[hypothesis.ids for hypothesis in found] for found in model.submit(model.encode(texts))()]


@pytest.mark.parametrize("family", ["marian-tags", "nllb"])
def test_hypotheses_come_best_first_without_the_forced_prefix(folders, family):
    model = external.load(folders[family], DecodingOptions(beam_size=4), n=4)
    for found in model.submit(model.encode(SOURCES))():
        assert len(found) == 4
        assert all(first.score >= second.score for first, second in itertools.pairwise(found))
        texts = model.decode([hypothesis.ids for hypothesis in found])
        assert len(set(texts)) > 1 and not any("deu" in text or ">>" in text for text in texts)


@pytest.mark.parametrize("family", ["marian-tags", "nllb"])
def test_a_sentence_does_not_depend_on_its_batch(folders, family):
    model = external.load(folders[family], DecodingOptions(beam_size=2))
    together = model.decode([found[0] for found in translations(model, SOURCES)])
    alone = [model.decode(translations(model, [text])[0][:1])[0] for text in SOURCES]
    # The longest source of a batch decides where all its translations are cut.
    assert sum(map(str.__eq__, together, alone)) >= len(SOURCES) - 1


def test_texts_without_words_have_no_ids(folders):
    for folder in folders.values():
        model = external.load(folder, DecodingOptions(), prefix="translate:")
        assert model.encode(["", "  ", "\t"]) == [[], [], []]
        assert model.encode([]) == [] and model.decode([]) == []


def test_translations_are_one_line(folders, monkeypatch):
    model = external.load(folders["nllb"], DecodingOptions())
    monkeypatch.setattr(model._tokenizer, "texts", lambda pieces: ["one\ntwo\r"] * len(pieces))
    assert model.decode([[5]]) == ["one two "]


def test_a_tag_given_as_prefix_is_one_token(folders, tmp_path):
    untold = shutil.copytree(folders["marian-tags"], tmp_path / "untold")
    about = json.loads((untold / "external.json").read_text())
    (untold / "external.json").write_text(json.dumps({**about, "source-front": [], "target-language": None}))
    told = external.load(folders["marian-tags"], DecodingOptions())
    prefixed = external.load(untold, DecodingOptions(), prefix=" >>deu<< ")
    assert translations(prefixed, SOURCES) == translations(told, SOURCES)
    other = external.load(untold, DecodingOptions(), prefix=">>nld<<")
    scores = [[found[0].score for found in model.submit(model.encode(SOURCES))()] for model in (told, prefixed, other)]
    assert scores[0] == scores[1] != scores[2]
    with pytest.raises(UserError, match="has no tag >>deo<<: the nearest are >>deu<<"):
        external.load(untold, DecodingOptions(), prefix=">>deo<<")
    with pytest.raises(UserError, match="has >>deu<< in front of every source: >>nld<< cannot be there too"):
        external.load(folders["marian-tags"], DecodingOptions(), prefix=">>nld<<")


def test_words_given_as_prefix_stand_before_the_text(folders):
    model = external.load(folders["mt5"], DecodingOptions(), prefix="tako:")
    plain = external.load(folders["mt5"], DecodingOptions())
    assert model.encode(SOURCES) == plain.encode([f"tako: {text}" for text in SOURCES])


def test_sources_are_cut_where_the_model_has_no_more_positions(folders):
    model = external.load(folders["nllb"], DecodingOptions(max_length=1000, max_length_factor=50))
    assert model.longest == 64 - 2  # the language's token and the end of sentence
    source = (model.encode([" ".join(SOURCES)])[0] * 9)[: model.longest]
    (found,) = model.submit([source])()
    assert len(found[0].ids) < 64
    assert external.load(folders["nllb"], DecodingOptions(max_length=20)).longest == 18
    with pytest.raises(UserError, match=r"max-length is 2, but the tokens .* alone take 2 of them"):
        external.load(folders["nllb"], DecodingOptions(max_length=2))


def test_translations_are_cut_at_their_longest(folders):
    short = external.load(folders["mt5"], DecodingOptions(max_length_factor=0.01))
    assert max(len(row[0]) for row in translations(short, SOURCES)) <= 11


def test_samples_are_the_same_whenever_they_are_drawn(folders):
    def sample(seed):
        options = DecodingOptions(beam_size=1, sampling=Sampling(0, 1.5, seed))
        model = external.load(folders["nllb"], options)
        return translations(model, SOURCES) + translations(model, SOURCES)

    found = sample(1)
    assert found == sample(1) != sample(2)
    assert found[: len(SOURCES)] != found[len(SOURCES) :]


def test_precisions(folders):
    int8 = external.load(folders["nllb"], DecodingOptions(precision="int8", beam_size=1))
    exact = external.load(folders["nllb"], DecodingOptions(beam_size=1))
    assert "int8" in int8.description
    assert str(int8._translator.compute_type).startswith("int8") and exact._translator.compute_type == "float32"
    same = sum(map(list.__eq__, translations(int8, SOURCES), translations(exact, SOURCES)))
    assert len(SOURCES) / 2 < same
    with pytest.raises(UserError, match="float16 needs a GPU"):
        external.load(folders["nllb"], DecodingOptions(precision="float16"), device="cpu")


def test_pieces_that_the_model_does_not_know_do_no_harm(folders):
    for folder in folders.values():
        model = external.load(folder, DecodingOptions(beam_size=1))
        assert len(translations(model, ["漢字 tako 🙂", "</s> tako"])) == 2


def test_some_sentences_were_learnt(folders):
    """The other tests would be of little worth with models that translate everything alike."""
    model = external.load(folders["marian-tags"], DecodingOptions())
    assert model.decode([found[0] for found in translations(model, SOURCES)]) == TARGETS


def test_folders_that_are_not_whole(folders, tmp_path, monkeypatch):
    folder = shutil.copytree(folders["nllb"], tmp_path / "model")
    (folder / "external.json").write_text('{"family": "nllb", "tokeniser": "huggingface"}')
    with pytest.raises(UserError, match=r"external.json is not what pipeline.continuation.external writes"):
        external.load(folder, DecodingOptions())
    shutil.copy(folders["nllb"] / "external.json", folder)
    (folder / "tokenizer" / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"transformers cannot read the tokenizer of .*/model/tokenizer"):
        external.load(folder, DecodingOptions())
    (folder / "model.bin").unlink()
    shutil.copy(folders["nllb"] / "tokenizer" / "tokenizer.json", folder / "tokenizer")
    with pytest.raises(UserError, match=r"it has no model.bin"):
        external.load(folder, DecodingOptions())
