"""The architecture of a model and its YAML text."""

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import tiny_config

from pipeline.common.errors import UserError
from pipeline.model.config import ModelConfig


@given(
    heads=st.sampled_from([1, 2, 8]),
    width=st.integers(1, 8).map(lambda value: 16 * value),
    activation=st.sampled_from(["relu", "swish", "gelu"]),
    post=st.text("dan", max_size=4),
    tying=st.sampled_from([(True, False, False), (False, True, False), (False, False, False), (False, False, True)]),
    layer=st.sampled_from(["last", "1", "2"]),
    decoder=st.sampled_from([("self-attention", "gru"), ("rnn", "ssru")]),
    tied_layers=st.sampled_from([(), (1, 1), (1, 2), (2, 2)]),
)
def test_what_is_written_is_read(heads, width, activation, post, tying, layer, decoder, tied_layers):
    config = tiny_config(
        dim_emb=width,
        transformer_heads=heads,
        transformer_ffn_activation=activation,
        transformer_postprocess=post,
        tied_embeddings_all=tying[0],
        tied_embeddings=tying[1],
        tied_embeddings_src=tying[2],
        transformer_decoder_autoreg=decoder[0],
        dec_cell=decoder[1],
        transformer_tied_layers=tied_layers,
        transformer_guided_alignment_layer=layer,
    )
    assert ModelConfig.from_yaml(config.to_yaml()) == config


def test_the_text_has_all_keys_that_the_engines_look_up():
    values = yaml.safe_load(tiny_config().to_yaml())
    engine_keys = {"type", "dim-vocabs", "dim-emb", "enc-depth", "dec-depth", "transformer-heads", "version"}
    converter_keys = {
        *("transformer-preprocess", "transformer-postprocess", "transformer-postprocess-emb"),
        *("transformer-decoder-autoreg", "transformer-no-projection", "transformer-guided-alignment-layer"),
    }
    assert engine_keys | converter_keys <= values.keys()
    assert not [key for key in values if "dropout" in key]


def test_a_text_without_optional_keys_gets_marians_defaults():
    config = ModelConfig.from_yaml(
        "{type: transformer, dim-vocabs: [8, 8], dim-emb: 16, enc-depth: 1, dec-depth: 1, transformer-heads: 2,"
        " transformer-dim-ffn: 8, tied-embeddings-all: true}"
    )
    assert config.transformer_ffn_activation == "swish"
    assert config.transformer_postprocess == "dan"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"dim_emb": 30}, "dim-emb 30"),
        ({"dim_vocabs": (10, 20)}, "joint vocabulary"),
        ({"dim_vocabs": (10,)}, "two sizes"),
        ({"transformer_ffn_activation": "tanh"}, "relu, swish, gelu"),
        ({"transformer_decoder_autoreg": "average-attention"}, "one of self-attention, rnn"),
        ({"transformer_decoder_autoreg": "rnn"}, "use dec-cell ssru"),
        ({"transformer_tied_layers": (1, 1, 1)}, "transformer-tied-layers [1, 1, 1]: one number from 1 to 2"),
        ({"transformer_tied_layers": (0, 1)}, "transformer-tied-layers [0, 1]"),
        ({"transformer_postprocess": "dah"}, "'h'"),
        ({"transformer_guided_alignment_layer": "3"}, "from 1 to 2"),
        ({"transformer_dropout": 1.0}, "transformer-dropout is 1.0"),
        ({"enc_depth": 0}, "enc-depth is 0"),
    ],
)
def test_impossible_architectures_are_named(changes, named):
    with pytest.raises(UserError, match=re.escape(named)):
        tiny_config(**changes)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("type", "s2s"),
        ("transformer-train-position-embeddings", True),
        ("transformer-tied-layers", [1, 3]),
        ("transformer-tied-layers", [1]),
        ("transformer-tied-layers", 1),
        ("transformer-rnn-projection", True),
        ("transformer-ffn-depth", 3),
        ("transformer-no-projection", True),
        ("transformer-decoder-autoreg", "average-attention"),
        ("lemma-dim-emb", 32),
    ],
)
def test_unsupported_architectures_of_model_files_are_refused(key, value):
    values = yaml.safe_load(tiny_config().to_yaml()) | {key: value}
    with pytest.raises(UserError, match="wrong type" if value == 1 and key.endswith("layers") else key):
        ModelConfig.from_yaml(yaml.safe_dump(values))


def test_normalisation_inside_recurrent_units_is_refused():
    text = tiny_config(transformer_decoder_autoreg="rnn", dec_cell="ssru").to_yaml()
    values = yaml.safe_load(text)
    assert (values["dec-cell"], values["layer-normalization"], values["transformer-tied-layers"]) == ("ssru", False, [])
    with pytest.raises(UserError, match="layer-normalization"):
        ModelConfig.from_yaml(yaml.safe_dump(values | {"layer-normalization": True}))


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [", "dim-emb: 8"])
def test_other_texts_are_refused(text):
    with pytest.raises(UserError, match="configuration"):
        ModelConfig.from_yaml(text)
