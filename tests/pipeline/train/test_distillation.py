from typing import Any

import pytest

from pipeline.common.errors import UserError
from pipeline.train.distillation import (
    RECIPES,
    Distillation,
    chosen_layers,
    layer_pairs,
    parse_distillation,
    parse_initialisation,
)


def test_nothing_given_is_learning_from_the_distilled_corpus_alone() -> None:
    assert parse_distillation({}) == Distillation()
    assert Distillation().corpora == ("distilled",)
    assert not Distillation().needs_teacher


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_stands(recipe: str) -> None:
    distillation = parse_distillation({"recipe": recipe})
    needs_teacher = recipe in ("word", "hybrid", "triple", "low-data")
    assert distillation.needs_teacher == needs_teacher
    assert distillation.to_json()["recipe"] == recipe


def test_what_is_given_wins_over_the_recipe() -> None:
    distillation = parse_distillation({"recipe": "triple", "temperature": "4", "encoder-hidden-weight": 0})
    assert (distillation.temperature, distillation.encoder_hidden_weight) == (4.0, 0.0)
    assert distillation.hidden_weights == {"decoder": 0.125}
    assert not parse_distillation({"recipe": "hybrid", "top-k": 8}).needs_teacher


def test_corpora_are_mixed_by_their_probabilities() -> None:
    mixed = parse_distillation({"recipe": "interpolation", "original-fraction": 0.25})
    assert mixed.corpora == ("distilled", "original")
    assert mixed.curriculum() == [{"mix": {"distilled": 0.75, "original": 0.25}, "until": None}]
    assert parse_distillation({"recipe": "word"}).curriculum() == [{"mix": {"original": 1.0}, "until": None}]
    mixed.check_corpora(["original", "distilled"])
    with pytest.raises(UserError, match="reads the corpora distilled and original, but distilled are given"):
        mixed.check_corpora(["distilled"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"recipe": "hybird"}, "did you mean hybrid"),
        ({"temprature": 2}, "did you mean temperature"),
        ({"recipe": "word", "temperature": 0}, "temperature 0: it must be above 0"),
        ({"nll-weight": -1}, "nll-weight -1: a number of at least 0"),
        ({"nll-weight": "much"}, "nll-weight 'much': a number"),
        ({"nll-weight": True}, "nll-weight True: a number"),
        ({"original-fraction": 1.5}, "a fraction from 0"),
        ({"nll-weight": 0}, "nothing is learned"),
        ({"temperature": 2}, "temperature says nothing without word-kd-weight"),
        ({"top-k": 8}, "top-k says nothing"),
        ({"recipe": "hybrid", "top-k": 8, "temperature": 2}, "stored at temperature 1"),
        ({"recipe": "hybrid", "top-k": 1.5}, "a whole number of pieces"),
        ({"hidden-loss": "mse"}, "hidden-loss says nothing"),
        ({"recipe": "triple", "hidden-loss": "l1"}, "hidden-loss 'l1': one of cosine, mse"),
        ({"recipe": "hybrid", "layer-map": "last"}, "layer-map says nothing"),
        ({"recipe": "triple", "layer-map": {"encoder": [1]}}, "layer-map is of encoder, hidden"),
        ({"recipe": "triple", "layer-map": {"encoder": [-1]}}, "whole numbers from 0"),
        ({"recipe": "triple", "layer-map": "odd"}, "even or last, or for encoder and decoder a list"),
        ("hybrid", "must be a mapping"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(values: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_distillation(values)


def test_layers_to_compare() -> None:
    assert layer_pairs("even", "encoder", 2, 6) == [(1, 3), (2, 6)]
    assert layer_pairs("even", "encoder", 3, 3) == [(1, 1), (2, 2), (3, 3)]
    assert layer_pairs("even", "decoder", 3, 1) == [(1, 1), (2, 1), (3, 1)]
    assert layer_pairs("last", "decoder", 2, 6) == [(2, 6)]
    assert layer_pairs({"encoder": (0, 4)}, "encoder", 2, 6) == [(2, 4)]
    for layers in [(1, 2, 3), (1, 7), (0, 0)]:
        with pytest.raises(UserError, match="student's encoder has 2 layers and the teacher's 6"):
            layer_pairs({"encoder": layers}, "encoder", 2, 6)


def test_layers_to_begin_with() -> None:
    assert chosen_layers("all", "encoder", 3, 3) == [1, 2, 3]
    # The field's published choices, counted from 1.
    assert chosen_layers("alternating", "encoder", 6, 12) == [1, 3, 5, 8, 10, 12]
    assert chosen_layers("alternating", "encoder", 3, 12) == [1, 7, 12]
    assert chosen_layers("alternating", "decoder", 2, 6) == [1, 6]
    assert chosen_layers("alternating", "decoder", 1, 6) == [1]
    assert chosen_layers("every 3", "decoder", 2, 6) == [3, 6]
    assert chosen_layers("first", "decoder", 2, 6) == [1, 2]
    assert chosen_layers("last", "decoder", 2, 6) == [5, 6]
    assert chosen_layers((6, 1, 1), "decoder", 3, 6) == [6, 1, 1]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("all", "1, 2, 3, 4, 5, 6 of the model's 6 encoder layers, but the student needs 2"),
        ("every 2", "2, 4, 6 of the model's 6 encoder layers, but the student needs 2"),
        ("every 9", "no layer of"),
        ((1, 2, 3), "the student needs 2"),
        ((1, 7), "1, 7 of the model's 6"),
    ],
)
def test_layers_that_do_not_fit(choice: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        chosen_layers(choice, "encoder", 2, 6)


def test_a_student_deeper_than_its_model_has_nothing_to_copy() -> None:
    with pytest.raises(UserError, match="the student has 6 decoder layers, the model only 2"):
        chosen_layers("alternating", "decoder", 6, 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"encoder-layer": "all"}, "did you mean encoder-layers"),
        ({"encoder-layers": "every"}, "such as every 3"),
        ({"encoder-layers": "every 0"}, "such as every 3"),
        ({"encoder-layers": [0, 1]}, "whole numbers from 1"),
        ({"freeze": ["encoders"]}, "some of embeddings, encoder, decoder"),
        ({"freeze": ["encoder", "decoder", "embeddings"]}, "nothing is left to train"),
    ],
)
def test_an_initialisation_that_makes_no_sense(values: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_initialisation(values)
