"""What a config says of curricula and augmentation, and what the trainings are told of it."""

import json
import shlex
from typing import Any

import pytest

from limbeck_taskgraph.config_file import ConfigError
from limbeck_taskgraph.generate import generate_graph
from utils.check_config import check_values

TEACHER, STUDENT = "train-teacher-model-en-de-1", "distillation-student-model-train-en-de"
BACKWARD = "backtranslations-train-backwards-model-en-de"
STAGES = [
    {"mix": {"original": 6, "backtranslated": 4}, "until": "3e of backtranslated"},
    {"mix": {"original": 1}},
]


def value(graph: Any, label: str, flag: str) -> str | None:
    words = shlex.split(graph.tasks[label].task["payload"]["command"][0][-1])
    return words[words.index(flag) + 1] if flag in words else None


def test_teacher_and_student_are_augmented_and_the_backward_model_is_not(make_config: Any) -> None:
    graph = generate_graph(make_config(datasets={"mono-trg": ["gettext_mono"]}))
    assert value(graph, TEACHER, "--augmentation") == value(graph, STUDENT, "--augmentation") == "defaults"
    assert value(graph, BACKWARD, "--augmentation") is None
    assert value(graph, TEACHER, "--curriculum") is value(graph, STUDENT, "--curriculum") is None


@pytest.mark.parametrize("given", ["none", {"upper-case": 0.25, "typos": 0.0}])
def test_augmentation_as_given(make_config: Any, given: Any) -> None:
    config = make_config(experiment={"augmentation": given})
    check_values(config)
    graph = generate_graph(config)
    for label in (TEACHER, STUDENT):
        told = value(graph, label, "--augmentation")
        assert told == given if isinstance(given, str) else json.loads(told or "") == given


def test_stored_distributions_are_of_text_as_it_stands(make_config: Any) -> None:
    distillation = {"recipe": "word", "top-k": 8}
    options = {"marian-args": {"training-student": {"sentencepiece-alphas": []}}}
    graph = generate_graph(make_config(experiment={"distillation": distillation}, **options))
    assert value(graph, STUDENT, "--augmentation") == "none"
    assert value(graph, TEACHER, "--augmentation") == "defaults"
    asked = make_config(experiment={"distillation": distillation, "augmentation": "defaults"}, **options)
    with pytest.raises(ConfigError, match=r"experiment\.distillation: .*augmentation"):
        check_values(asked)


def test_curricula_reach_their_trainings(make_config: Any) -> None:
    config = make_config(
        experiment={
            "curriculum": {"teacher": STAGES, "student": [{"mix": {"distilled": 1, "original": 1}}]},
            "distillation": {"recipe": "interpolation"},
        },
        datasets={"mono-trg": ["gettext_mono"]},
    )
    check_values(config)
    graph = generate_graph(config)
    assert json.loads(value(graph, TEACHER, "--curriculum") or "") == STAGES
    assert json.loads(value(graph, STUDENT, "--curriculum") or "") == [{"mix": {"distilled": 1, "original": 1}}]


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        ({"augmentation": "all"}, "experiment.augmentation"),
        ({"augmentation": {"uppercase": 0.1}}, "experiment.augmentation: .*'uppercase' is not one of upper-case, "),
        ({"augmentation": {"typos": 2}}, "experiment.augmentation: .*chance of typos is a number between 0 and 1"),
        (
            {"curriculum": {"teacher": STAGES}},  # without mono-trg
            "experiment.curriculum.teacher: .*stage 1: the corpus backtranslated is not given, only original",
        ),
        (
            {"curriculum": {"student": [{"mix": {"original": 1}}]}},
            "experiment.curriculum.student: .*the corpus original is not given, only distilled",
        ),
        ({"curriculum": {"teacher": [{"mix": {"original": 0}}]}}, "experiment.curriculum.teacher: .*above 0, not 0"),
        ({"curriculum": {"backward": []}}, "experiment.curriculum.backward: unknown key"),
    ],
)
def test_wrong_values_are_named_before_anything_runs(make_config: Any, experiment: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_values(make_config(experiment=experiment))
