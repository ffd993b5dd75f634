"""Decoding options under Marian's names."""

import logging

import pytest

from pipeline.common.errors import UserError
from pipeline.model.decoding import DecodingOptions, Sampling, decoding_options


def test_options_are_taken_by_their_names():
    options = decoding_options(
        {"beam-size": 8, "normalize": 0.6, "max-length": 150, "mini-batch-words": 5000, "precision": "int8"}
    )
    assert options == DecodingOptions(
        beam_size=8, normalize=0.6, max_length=150, mini_batch_words=5000, precision="int8"
    )
    assert decoding_options({}) == DecodingOptions()
    assert decoding_options({"fp16": True}).precision == "float16"
    assert decoding_options({"precision": "float32", "fp16": True}).precision == "float32"


def test_values_may_be_texts_as_they_are_in_existing_configs():
    options = decoding_options({"beam-size": "12", "mini-batch-words": "2000", "normalize": "1", "allow-unk": "true"})
    assert options == DecodingOptions(beam_size=12, mini_batch_words=2000, allow_unk=True)


def test_defaults_give_way_to_what_is_given():
    assert decoding_options({"beam-size": 3}, beam_size=1, max_length=900) == DecodingOptions(
        beam_size=3, max_length=900
    )


@pytest.mark.parametrize(
    ("value", "sampling"),
    [
        (True, Sampling()),
        ("full", Sampling()),
        ("full 0.8", Sampling(temperature=0.8)),
        ("topk 10", Sampling(10)),
        (["topk", 10, 0.5], Sampling(10, 0.5)),
        (False, None),
    ],
)
def test_sampling_is_spelt_as_in_marian(value, sampling):
    assert decoding_options({"output-sampling": value, "beam-size": 1}).sampling == sampling


def test_the_seed_is_that_of_the_samples():
    options = decoding_options({"output-sampling": "topk 10", "beam-size": 1, "seed": 7})
    assert options.sampling == Sampling(10, 1.0, 7)
    assert options.to_json()["sampling"] == {"top_k": 10, "temperature": 1.0, "seed": 7}
    assert "sampling" not in DecodingOptions().to_json()


def test_options_of_layout_are_named_in_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        assert decoding_options({"maxi-batch": 1000, "workspace": 8000, "mini-batch": 64}) == DecodingOptions()
    assert "maxi-batch, mini-batch, workspace" in caplog.text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beamsize": 4}, "did you mean 'beam-size'"),
        ({"colour": 4}, "known are allow-unk, beam-size"),
        ({"beam-size": 0}, "beam-size is 0"),
        ({"beam-size": True}, "beam-size is True"),
        ({"beam-size": "4.5"}, "beam-size is '4.5'"),
        ({"beam-size": "four"}, "beam-size is 'four'"),
        ({"normalize": -1}, "normalize is -1"),
        ({"normalize": float("nan")}, "normalize is nan"),
        ({"max-length": 5000}, "at most 1000"),
        ({"max-length-factor": 0}, "above 0"),
        ({"precision": "int4"}, "float32, float16, int8"),
        ({"allow-unk": 1}, "true or false"),
        ({"word-penalty": 0.5}, "word-penalty"),
        ({"output-sampling": "top 5", "beam-size": 1}, "'topk 10'"),
        ({"output-sampling": "topk 0.5", "beam-size": 1}, "'topk 10'"),
        ({"output-sampling": "full 0", "beam-size": 1}, "temperature above 0"),
        ({"output-sampling": "full"}, "needs beam-size 1, found 4"),
        ([4], "must be a mapping"),
    ],
)
def test_other_options_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        decoding_options(values)
