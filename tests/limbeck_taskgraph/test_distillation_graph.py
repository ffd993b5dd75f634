"""What a recipe of distillation makes of the graph: the student is given what it needs, and nothing else is made."""

import dataclasses
import json
import re
import shlex
import typing
from typing import Any

import pytest

from limbeck_taskgraph.config_file import ConfigError
from limbeck_taskgraph.generate import generate_graph
from limbeck_taskgraph.training_config import Distillation as Section
from limbeck_taskgraph.training_config import Initialise
from pipeline.train.distillation import RECIPES, Distillation, Initialisation
from utils.check_config import check_values


def student(graph: Any) -> list[str]:
    return shlex.split(graph.tasks["distillation-student-model-train-en-de"].task["payload"]["command"][0][-1])


def flags(words: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            flag = word
            found.setdefault(flag, [])
        elif found:
            found[flag].append(re.sub(r"^\$\w+/", "", word))
    return found


def kinds(graph: Any) -> set[str]:
    return {task.kind for task in graph}


def test_the_config_has_the_trainers_keys_and_recipes() -> None:
    ours = {field.name for field in dataclasses.fields(Distillation)}
    assert set(Section.model_fields) == ours | {"initialise"}
    assert set(Initialise.model_fields) == {field.name for field in dataclasses.fields(Initialisation)}
    assert typing.get_args(Section.model_fields["recipe"].annotation) == tuple(RECIPES)


def test_sequence_level_distillation_needs_nothing_but_the_distilled_corpus(make_config: Any) -> None:
    given = flags(student(generate_graph(make_config())))
    assert given == flags(student(generate_graph(make_config(experiment={"distillation": {"recipe": "sequence"}}))))
    assert given["--corpus"][0] == "distilled" and len(given["--corpus"]) == 4
    assert (
        not {"--distillation", "--initialise", "--teacher", "--teacher-vocab", "--teacher-distributions"} & given.keys()
    )


def test_a_hybrid_student_meets_every_teacher(make_config: Any) -> None:
    config = make_config(experiment={"distillation": {"recipe": "hybrid", "temperature": 2}, "teacher-ensemble": 2})
    check_values(config)
    given = flags(student(generate_graph(config)))
    assert given["--teacher"] == [f"train-teacher-model-en-de-{n}/final.model.npz.best-chrf.npz" for n in (1, 2)]
    assert given["--teacher-vocab"] == ["build-vocab-en-de/vocab.en.spm", "build-vocab-en-de/vocab.de.spm"]
    assert json.loads(given["--distillation"][0]) == {"recipe": "hybrid", "temperature": 2.0}
    assert "original" not in given["--corpus"]


def test_interpolation_mixes_both_corpora_without_a_teacher(make_config: Any) -> None:
    given = flags(student(generate_graph(make_config(experiment={"distillation": {"recipe": "interpolation"}}))))
    assert [word for word in given["--corpus"] if "/" not in word] == ["distilled", "original"]
    assert "corpus-align-parallel-en-de/corpus.aln.zst" in given["--corpus"]
    assert "--teacher" not in given


def test_word_level_distillation_translates_nothing(make_config: Any) -> None:
    graph = generate_graph(make_config(experiment={"distillation": {"recipe": "word"}}))
    assert flags(student(graph))["--corpus"][0] == "original"
    assert not {kind for kind in kinds(graph) if "translate" in kind or kind == "corpus-merge-distillation"}
    shortlist = graph.tasks["distillation-corpus-build-shortlist-en-de"].task["payload"]["command"][0][-1]
    assert "corpus-merge-parallel-en-de" in shortlist and shortlist.count("--corpus-src") == 1
    assert {"export", "report", "distillation-student-model-quantize"} <= kinds(graph)


def test_stored_distributions_are_made_once_and_stand_in_for_the_teacher(make_config: Any) -> None:
    config = make_config(
        experiment={"distillation": {"recipe": "low-data", "top-k": 4}},
        marian_args={"training-student": {"sentencepiece-alphas": 0, "max-length": 150}},
    )
    check_values(config)
    graph = generate_graph(config)
    given = flags(student(graph))
    assert given["--teacher-distributions"] == [
        "distilled", "distillation-teacher-distributions-en-de/corpus.distributions.zst",
        "original", "distillation-teacher-distributions-original-en-de/original.distributions.zst",
    ]  # fmt: skip
    assert "--teacher" not in given
    step = graph.tasks["distillation-teacher-distributions-en-de"].task["payload"]["command"][0][-1]
    made = flags(shlex.split(step))
    assert (made["--top-k"], made["--max-length"]) == (["4"], ["150"])


def test_a_student_that_begins_with_layers_of_its_teacher(make_config: Any) -> None:
    same = {"dim-emb": 256, "transformer-dim-ffn": 1536, "transformer-heads": 8}
    initialise = {"decoder-layers": [1, 6], "freeze": ["embeddings"]}
    config = make_config(
        experiment={"distillation": {"initialise": initialise}}, marian_args={"training-teacher": same}
    )
    check_values(config)
    given = flags(student(generate_graph(config)))
    assert json.loads(given["--initialise"][0]) == initialise
    assert given["--teacher"] and "--distillation" not in given


@pytest.mark.parametrize(
    ("distillation", "message"),
    [
        ({"temperature": 2}, "temperature says nothing without word-kd-weight"),
        ({"recipe": "hybrid", "top-k": 8}, "sentencepiece-alphas would change the pieces"),
        ({"recipe": "triple", "layer-map": {"encoder": [1], "decoder": [1, 2]}}, "student's encoder has 6 layers"),
        ({"initialise": {"decoder-layers": [1, 6]}}, "teacher has dim-emb 1024 and the student 256"),
        ({"initialise": {"encoder-layers": "evry 2"}}, "such as every 3"),
    ],
)
def test_what_would_fail_after_hours_is_said_before(make_config: Any, distillation: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"experiment\.distillation: .*{message}"):
        check_values(make_config(experiment={"distillation": distillation}))


def test_hidden_states_of_an_ensemble_are_not_compared(make_config: Any) -> None:
    config = make_config(experiment={"distillation": {"recipe": "triple"}, "teacher-ensemble": 2})
    with pytest.raises(ConfigError, match="one teacher"):
        check_values(config)


def test_unknown_recipes_are_answered_with_the_nearest(make_config: Any) -> None:
    with pytest.raises(ConfigError, match="did you mean hybrid"):
        make_config(experiment={"distillation": {"recipe": "hybird"}})
    with pytest.raises(ConfigError, match="did you mean temperature"):
        make_config(experiment={"distillation": {"temprature": 2}})
