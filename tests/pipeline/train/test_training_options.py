import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.common.errors import UserError
from pipeline.train.options import load_presets, model_config, parse_options
from pipeline.train.schedule import Amount

UNITS = {"": "updates", "u": "updates", "e": "epochs", "t": "tokens"}
FACTORS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


@given(st.integers(0, 10**6), st.sampled_from(sorted(FACTORS)), st.sampled_from(sorted(UNITS)))
def test_amounts_have_factors_and_units(count: int, factor: str, unit: str) -> None:
    assert Amount.parse(f"{count}{factor}{unit}") == Amount(count * FACTORS[factor], UNITS[unit])


@given(st.text(max_size=8))
def test_any_text_is_an_amount_or_refused(text: str) -> None:
    try:
        amount = Amount.parse(text)
    except ValueError:
        return
    assert amount.count >= 0


@given(
    st.integers(1, 10**6),
    st.floats(1e-6, 1.0),
    st.booleans(),
    st.lists(st.floats(0, 1), max_size=2),
    st.sampled_from(["5000u", "3e", "1Mt"]),
)
def test_values_mean_the_same_in_any_spelling(
    seed: int, rate: float, crop: bool, alphas: list[float], after: str
) -> None:
    typed = {
        "seed": seed,
        "learn-rate": rate,
        "max-length-crop": crop,
        "sentencepiece-alphas": alphas,
        "after": [after],
    }
    spelt = {
        "seed": str(seed),
        "learn_rate": repr(rate),
        "--max-length-crop": str(crop).lower(),
        "sentencepiece-alphas": " ".join(map(repr, alphas)),
        "after": after,
    }
    assert parse_options("backward", typed) == parse_options("backward", spelt)


@pytest.mark.parametrize("preset", sorted(load_presets()))
def test_options_can_be_written_and_read_back(preset: str) -> None:
    options = parse_options(preset, {"after": "10e,300Ku", "early-stopping": "15"})
    assert options.limits() == (Amount(10, "epochs"), Amount(300_000, "updates"))
    assert parse_options(preset, options.to_yaml()) == options


def test_presets_are_those_of_the_field() -> None:
    teacher, student = parse_options("teacher"), parse_options("student-base-memory")
    assert (teacher.dim_emb, teacher.transformer_dim_ffn, teacher.transformer_heads) == (1024, 4096, 16)
    assert (teacher.learn_rate, teacher.optimizer_params) == (3e-4, (0.9, 0.998, 1e-9))
    assert (student.dim_emb, student.transformer_dim_ffn, student.dec_depth) == (384, 1536, 4)
    assert (student.lr_warmup, student.lr_decay_inv_sqrt) == (Amount(16000, "updates"), (Amount(32000, "updates"),))
    assert student.guided_alignment and student.label_smoothing == 0


def test_a_task_sets_options_and_loses_against_options_beside_it() -> None:
    options = parse_options("student-tiny", {"task": "transformer-base", "dim-emb": "256"})
    assert (options.dec_depth, options.transformer_dim_ffn, options.dim_emb) == (6, 2048, 256)


def test_guided_alignment_is_a_path_or_none_in_old_configs() -> None:
    assert parse_options("teacher", {"guided-alignment": "corpus.aln.gz"}).guided_alignment
    assert not parse_options("student-tiny", {"guided-alignment": "none"}).guided_alignment


def test_harmless_options_are_named_in_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        parse_options("teacher", {"workspace": 12000, "mini-batch-fit": True, "shuffle": "batches"})
    assert "mini-batch-fit, workspace" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lern-rate": 1}, "did you mean learn-rate"),
        ({"bert-mask-fraction": 0.1}, "unknown training option bert-mask-fraction"),
        ({"learn-rate": "fast"}, "learn-rate: 'fast' is not a number"),
        ({"learn-rate": "nan"}, "is not a number"),
        ({"enc-depth": "6.5"}, "enc-depth: '6.5' is not a whole number"),
        ({"enc-depth": "6e"}, "is not a whole number"),
        ({"dim-emb": True}, "is not a whole number"),
        ({"valid-freq": "3000x"}, "valid-freq: '3000x' is not an amount"),
        ({"max-length-crop": "perhaps"}, "is not true or false"),
        ({"valid-metrics": ["chrf", "comet"]}, "'comet' is not one of"),
        ({"precision": "float8"}, "not one of auto, bfloat16, float16, float32"),
        ({"cost-type": "ce-sum"}, "only ce-mean-words"),
        ({"optimizer": "sgd"}, "only adam"),
        ({"task": "transformer-huge"}, "not one of transformer-base, transformer-big"),
        ({"early-stopping": 0}, "training would never end"),
        ({"tied-embeddings": True, "tied-embeddings-all": True}, "exclude each other"),
        ({"label-smoothing": 1}, "label-smoothing must lie"),
        ({"mini-batch-words": 100}, "max-length 100 does not fit"),
        ({"optimizer-params": [0.9, 0.98]}, "three numbers"),
        ({"lr-decay-inv-sqrt": ["8000u", "1e"]}, "same unit"),
        ({"optimizer-delay": 0}, "must be at least 1"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_options("backward", options)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(UserError, match="the presets are backward, student-base"):
        parse_options("giant")


@pytest.mark.parametrize(
    ("shared", "options", "tied"),
    [
        (True, {}, (True, False)),
        (False, {}, (False, True)),
        (True, {"tied-embeddings-all": False}, (False, True)),
        (True, {"tied-embeddings": True}, (False, True)),
        (False, {"tied-embeddings": False}, (False, False)),
    ],
)
def test_embeddings_are_tied_as_far_as_the_vocabularies_allow(
    shared: bool, options: dict[str, object], tied: tuple[bool, bool]
) -> None:
    config = model_config(parse_options("backward", options), (64, 64), shared)
    assert (config.tied_embeddings_all, config.tied_embeddings) == tied


def test_tying_all_embeddings_needs_one_vocabulary() -> None:
    with pytest.raises(UserError, match="joint vocabulary"):
        model_config(parse_options("backward", {"tied-embeddings-all": "true"}), (64, 64), False)
