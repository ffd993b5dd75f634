"""The architecture of a model and its YAML text."""

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
    tying=st.sampled_from([(True, False), (False, True), (False, False)]),
    layer=st.sampled_from(["last", "1", "2"]),
)
def test_what_is_written_is_read(heads, width, activation, post, tying, layer):
    config = tiny_config(
        dim_emb=width,
        transformer_heads=heads,
        transformer_ffn_activation=activation,
        transformer_postprocess=post,
        tied_embeddings_all=tying[0],
        tied_embeddings=tying[1],
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
        ({"transformer_decoder_autoreg": "rnn"}, "transformer-decoder-autoreg 'rnn'"),
        ({"transformer_postprocess": "dah"}, "'h'"),
        ({"transformer_guided_alignment_layer": "3"}, "from 1 to 2"),
        ({"transformer_dropout": 1.0}, "transformer-dropout is 1.0"),
        ({"enc_depth": 0}, "enc-depth is 0"),
    ],
)
def test_impossible_architectures_are_named(changes, named):
    with pytest.raises(UserError, match=named.replace("(", "\\(")):
        tiny_config(**changes)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("type", "s2s"),
        ("transformer-train-position-embeddings", True),
        ("transformer-tied-layers", [1, 1]),
        ("transformer-no-projection", True),
        ("transformer-decoder-autoreg", "average-attention"),
        ("lemma-dim-emb", 32),
    ],
)
def test_unsupported_architectures_of_model_files_are_refused(key, value):
    values = yaml.safe_load(tiny_config().to_yaml()) | {key: value}
    with pytest.raises(UserError, match=key):
        ModelConfig.from_yaml(yaml.safe_dump(values))


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [", "dim-emb: 8"])
def test_other_texts_are_refused(text):
    with pytest.raises(UserError, match="configuration"):
        ModelConfig.from_yaml(text)
