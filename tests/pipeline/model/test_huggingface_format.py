"""Directories of transformers' MarianMTModel."""

import ast
import json
import os
import subprocess
import sys

import pytest
import torch
from tiny_model import tiny_files, tiny_model, toy_pairs, trained_model, vocab_bytes

from pipeline.common.errors import UserError
from pipeline.model import parity
from pipeline.model.formats import huggingface, huggingface_check
from pipeline.model.vocab import Vocab
from pipeline.vocab.build import train

transformers = pytest.importorskip("transformers")

ODD_TEXTS = [
    "  bako   taru\tmine ",
    "Ünïcode — “quotes” … 😀👍🏽 end",
    "Доброе утро, 世界! مرحبا",
    "a < / s > << >> x",
    "\u00a0no-break\u2003space\u200bzero width",
    "1234567890 %&$ {tag} <b>bold</b>",
    "ﬁne ½ Ⅳ ｆｕｌｌ",
]


def few_pieces():
    """Little for a random model, which translates to the limit, to translate."""
    return parity.Sample([row[:5] for row in parity.random_sample(328).sources[:8]], "8 rows of pieces")


def toy_sample(count=40):
    vocab = Vocab.load(tiny_files()[1])
    sources, targets = map(list, zip(*toy_pairs(count, seed=2), strict=True))
    return parity.Sample(vocab.encode(sources, add_eos=False), f"{count} toy sentences", sources, targets)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("huggingface") / "model"
    vocab = tiny_files()[1]
    huggingface.save(trained_model(), path, (vocab, vocab), ("en", "de"), toy_sample())
    return path


def test_the_directory_says_what_each_class_computes(directory):
    assert sorted(file.name for file in directory.iterdir()) == [
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "modeling_limbeck_marian.py",
        "source.spm",
        "target.spm",
        "tokenizer_config.json",
        "vocab.json",
    ]
    card = (directory / "README.md").read_text()
    assert "language:\n- en\n- de\n" in card and "greedy translations identical 40/40" in card
    assert "chrF against reference translations" in card and "the vocabulary's ids for 40/40 sentences" in card


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"transformer_ffn_activation": "gelu", "output_omit_bias": True},
        {"tied_embeddings_all": False, "transformer_ffn_activation": "swish"},
        {"tied_embeddings_all": False, "tied_embeddings": True},
        {"tied_embeddings_all": False, "tied_embeddings_src": True},
    ],
)
def test_the_exact_class_is_exact_and_the_way_back_loses_nothing(tmp_path, changes):
    vocab, model, sample = tiny_files()[1], tiny_model(**changes), few_pieces()
    huggingface.save(model, tmp_path / "model", (vocab, vocab), sample=sample)
    reference = parity.TorchEngine(model)
    targets = reference.translate(sample.sources, 1)
    scores = [
        torch.tensor([value for row in engine.score(sample.sources, targets) for value in row])
        for engine in (reference, *(huggingface_check.HuggingFaceEngine(tmp_path / "model", e) for e in (True, False)))
    ]
    assert (scores[1] - scores[0]).abs().max() <= 5e-5
    assert (scores[2] - scores[0]).abs().max() > 1e-3, "the two classes differ, which is why there are two"

    again = huggingface.load(tmp_path / "model")
    vocabs = huggingface.write_vocabs(tmp_path / "model", tmp_path)
    assert [path.read_bytes() for path in vocabs] == [vocab.read_bytes()] * 2
    if changes.get("tied_embeddings_src"):  # one matrix on both sides, but not in the output layer: written twice
        assert torch.equal(again.encoder_Wemb, model.Wemb) and torch.equal(again.decoder_Wemb, model.Wemb)
        return
    assert again.config == model.config
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name)), name


def test_two_vocabularies_of_different_sizes(tmp_path):
    source = tmp_path / "vocab.src.spm"
    source.write_bytes(train([text for text, _ in toy_pairs(1500)], 328, "nmt_nfkc", ()))
    vocabs = (source, tiny_files()[1])
    model = tiny_model(dim_vocabs=(328, 400), tied_embeddings_all=False, tied_embeddings=True)
    texts = [text for text, _ in toy_pairs(5, seed=4)]
    sample = parity.Sample(Vocab.load(source).encode(texts, add_eos=False), "5 toy sentences", texts)
    huggingface.save(model, tmp_path / "model", vocabs, sample=sample)
    assert "the vocabulary's ids for 5/5 sentences" in (tmp_path / "model/README.md").read_text()
    again = huggingface.load(tmp_path / "model")
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), again.parameters(), strict=True))
    written = huggingface.write_vocabs(tmp_path / "model", tmp_path)
    assert [path.read_bytes() for path in written] == [path.read_bytes() for path in vocabs]


def test_tied_decoder_layers_are_written_out(tmp_path):
    vocab, sample = tiny_files()[1], few_pieces()
    model = tiny_model(transformer_tied_layers=(1, 1))
    huggingface.save(model, tmp_path / "model", (vocab, vocab), sample=sample)
    again = huggingface.load(tmp_path / "model")
    assert again.config.transformer_tied_layers == ()
    assert parity.compare(parity.TorchEngine(model), parity.TorchEngine(again), sample).largest_difference == 0


def test_the_tokenizer_gives_the_vocabularys_ids(directory):
    tokenizer = huggingface_check.load_tokenizer(directory)
    vocab = Vocab.load(tiny_files()[1])
    texts = ODD_TEXTS + [source for source, _ in toy_pairs(20, seed=8)]
    assert [list(row) for row in tokenizer(texts).input_ids] == vocab.encode(texts)
    assert [list(row) for row in tokenizer(text_target=texts).input_ids] == vocab.encode(texts)
    assert tokenizer.batch_decode(vocab.encode(texts), skip_special_tokens=True) == [
        text.strip() for text in vocab.decode(vocab.encode(texts, add_eos=False))
    ]
    # The differences that the README names.
    assert list(tokenizer("ba </s> ba").input_ids).count(0) == 2 and vocab.encode(["ba </s> ba"])[0].count(0) == 1
    assert vocab.unk_id in tokenizer(">>abc<< ba").input_ids and vocab.unk_id not in vocab.encode([">>abc<< ba"])[0]


def test_it_loads_as_its_readme_says(directory, tmp_path):
    code = (directory / "README.md").read_text().split("```python\n")[1].split("```")[0]
    source = toy_pairs(1, seed=2)[0][0]
    code = code.replace("…", source) + "\nprint(type(model).__name__)\n"
    code += "print(type(AutoModelForSeq2SeqLM.from_pretrained('.')).__name__)\n"
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    translation, exact, plain = done.stdout.splitlines()
    vocab = Vocab.load(tiny_files()[1])
    ids = parity.TorchEngine(trained_model()).translate(vocab.encode([source], add_eos=False), 1)
    # transformers goes on where our search ends at its limit
    assert ast.literal_eval(translation)[0].startswith(vocab.decode(ids)[0])
    assert (exact, plain) == ("LimbeckMarianMTModel", "MarianMTModel")


def test_positions_go_on_beyond_the_table(directory):
    from pipeline.model.formats.modeling_limbeck_marian import MarianPositions
    from pipeline.model.transformer import sinusoidal_positions

    positions = MarianPositions(16, 32)
    assert torch.equal(positions(torch.Size([2, 1500])), sinusoidal_positions(1500, 32))
    assert torch.equal(positions(torch.Size([2, 1]), 700), sinusoidal_positions(701, 32)[-1:])


def public_layout(directory, path, **changes):
    """What conversions by transformers' own script look like: a pickle in float16, positions stored, old keys."""
    model = transformers.MarianMTModel.from_pretrained(directory)
    state = {name: tensor.half() for name, tensor in model.state_dict().items()}
    path.mkdir()
    torch.save(state, path / "pytorch_model.bin")
    values = json.loads((directory / "config.json").read_text())
    for key in ("auto_map", "dtype", "tie_word_embeddings", "share_encoder_decoder_embeddings", "decoder_vocab_size"):
        del values[key]
    values |= {"static_position_embeddings": True, "add_bias_logits": False, "normalize_embedding": False} | changes
    (path / "config.json").write_text(json.dumps(values))
    for name in ("source.spm", "target.spm", "vocab.json"):
        (path / name).write_bytes((directory / name).read_bytes())
    return path


def test_a_public_conversion_is_read(directory, tmp_path):
    model = huggingface.load(public_layout(directory, tmp_path / "public"))
    for name, parameter in trained_model().named_parameters():
        assert torch.equal(model.get_parameter(name), parameter.half().float()), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bart"}, "no model_type marian"),
        ({"scale_embedding": False}, "scale_embedding False"),
        ({"normalize_before": True}, "normalize_before True"),
        ({"decoder_ffn_dim": 128}, "encoder_ffn_dim 64 and decoder_ffn_dim 128"),
        ({"activation_function": "gelu"}, "activation_function 'gelu', which Marian does not have"),
        ({"tie_word_embeddings": False}, "not with the output layer"),
        ({"decoder_start_token_id": 5}, "starts translations with piece 5"),
        ({"encoder_layers": 3}, "lacks the tensor model.encoder.layers.2"),
    ],
)
def test_directories_of_other_architectures(directory, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        huggingface.load(public_layout(directory, tmp_path / "public", **changes))


def test_missing_and_damaged_files(directory, tmp_path):
    path = public_layout(directory, tmp_path / "public")
    (path / "pytorch_model.bin").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(UserError, match="not a sound file of weights"):
        huggingface.load(path)
    (path / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        huggingface.load(path)
    (path / "source.spm").unlink()
    with pytest.raises(UserError, match=r"no source\.spm"):
        huggingface.write_vocabs(path, tmp_path)
    (path / "vocab.json").write_text("[]")
    with pytest.raises(UserError, match="is not a vocabulary"):
        huggingface.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transformer_decoder_autoreg": "rnn", "dec_cell": "ssru"}, "no recurrent decoder .* Bergamot"),
        ({"transformer_preprocess": "n", "transformer_postprocess": "da"}, "normalises after each block"),
        ({"transformer_postprocess_emb": "nd"}, "-postprocess-emb 'nd' must be"),
        ({"dim_vocabs": (200, 200)}, "400 pieces, but the model was trained with 200"),
    ],
)
def test_what_cannot_be_written(tmp_path, changes, message):
    vocab = tmp_path / "vocab.spm"
    vocab.write_bytes(vocab_bytes())
    with pytest.raises(UserError, match=message):
        huggingface.save(tiny_model(**changes), tmp_path / "model", (vocab, vocab))
    assert [path.name for path in tmp_path.iterdir()] == ["vocab.spm"]


def test_an_exact_class_that_is_not_is_an_error(tmp_path, monkeypatch):
    vocab = tiny_files()[1]
    monkeypatch.setitem(huggingface._ACTIVATIONS, "relu", "gelu")
    with pytest.raises(UserError, match="LimbeckMarianMTModel does not compute the same model"):
        huggingface.save(trained_model(), tmp_path / "model", (vocab, vocab), sample=toy_sample())
    assert not (tmp_path / "model").exists()


def test_without_transformers_it_is_written_but_not_compared(tmp_path, monkeypatch, caplog):
    vocab = tiny_files()[1]
    monkeypatch.setitem(sys.modules, "transformers", None)
    huggingface.save(trained_model(), tmp_path / "model", (vocab, vocab), sample=toy_sample(4), more="## More\n\nText.")
    assert "was not compared with the model: transformers cannot be imported" in caplog.text
    readme = (tmp_path / "model/README.md").read_text()
    assert "It was not measured." in readme and readme.endswith("\n## More\n\nText.\n")
    with pytest.raises(UserError, match=r"pip install 'limbeck\[huggingface\]'"):
        huggingface_check.HuggingFaceEngine(tmp_path / "model", exact=False)
    monkeypatch.undo()
    engine = huggingface_check.HuggingFaceEngine(tmp_path / "model", exact=True)
    sample = toy_sample(4)
    found = parity.compare(parity.TorchEngine(trained_model()), engine, sample)
    assert found.same_greedy == found.sentences
