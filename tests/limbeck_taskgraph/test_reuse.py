"""What is reused, what runs, and the reasons that are given."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from limbeck_taskgraph.differences import differences
from limbeck_taskgraph.generate import generate_graph
from limbeck_taskgraph.reuse import Named, NamedTask, Plan, apply_plan, make_plan

TRAIN = "distillation-student-model-train-en-de"
QUANTIZE = "distillation-student-model-quantize-en-de"


@dataclass
class Memory:
    """A history in which the tasks of a graph are finished; their ids are `id-of-<label>`."""

    tasks: dict[str, str] = field(default_factory=dict)  # digest -> id
    meanings: dict[str, Any] = field(default_factory=dict)  # label -> meaning
    damages: dict[str, str] = field(default_factory=dict)  # id -> what is wrong

    @classmethod
    def of(cls, graph: Any) -> "Memory":
        return cls(
            {task.attributes["digest"]: f"id-of-{task.label}" for task in graph},
            {task.label: task.task["extra"]["limbeck"] for task in graph},
        )

    def finished(self, digest: str) -> list[str]:
        return [self.tasks[digest]] if digest in self.tasks else []

    def damage(self, task_id: str) -> str | None:
        return self.damages.get(task_id)

    def earlier(self, label: str) -> list[Any]:
        return [self.meanings[label]] if label in self.meanings else []


def plan(graph: Any, history: Memory, **more: Any) -> Plan:
    return make_plan(graph, ["all-pipeline-en-de"], history, **more)


def test_nothing_known_runs_everything(make_config: Any) -> None:
    graph = generate_graph(make_config())
    decided = plan(graph, Memory())
    assert set(decided.run) == set(graph.tasks)
    assert set(map(tuple, decided.run.values())) == {("never ran",)}


def test_everything_finished_runs_nothing(make_config: Any) -> None:
    graph = generate_graph(make_config())
    decided = plan(graph, Memory.of(graph))
    assert not decided.run
    assert decided.reused == {"all-pipeline-en-de": "id-of-all-pipeline-en-de"}


def test_planning_without_named_tasks_leaves_meanings_as_they_are(make_config: Any) -> None:
    graph, planned = generate_graph(make_config()), generate_graph(make_config())
    plan(planned, Memory())
    assert Memory.of(planned) == Memory.of(graph)


def test_a_changed_parameter_runs_what_depends_on_it_and_says_why(make_config: Any) -> None:
    before = generate_graph(make_config(marian_args={"training-student": {"learn-rate": 0.003, "after": "10u"}}))
    after = generate_graph(
        make_config(marian_args={"training-student": {"learn-rate": 0.001, "after": "10u", "seed": 7}})
    )
    decided = plan(after, Memory.of(before))
    learn_rate, seed = decided.run[TRAIN]
    assert learn_rate.endswith(" learn-rate 0.003 -> 0.001")
    assert seed.endswith(" seed not set -> 7")
    assert decided.run[QUANTIZE][0].startswith("input ") and decided.run[QUANTIZE][0].endswith(" changed")
    assert not any(label.startswith(("train-teacher", "corpus-", "dataset-", "build-vocab")) for label in decided.run)


def test_a_new_data_set_is_named(make_config: Any) -> None:
    before = generate_graph(make_config())
    after = generate_graph(make_config(datasets={"train": ["gettext_one", "gettext_two", "gettext_three"]}))
    decided = plan(after, Memory.of(before))
    (reason,) = decided.run["corpus-merge-parallel-en-de"]
    assert reason.endswith(" now has corpus-clean-parallel-gettext-three-en-de")
    assert decided.run["dataset-gettext-three-en-de"] == ["never ran"]
    assert "corpus-clean-parallel-gettext-one-en-de" in decided.reused


def test_the_nearest_earlier_task_is_compared(make_config: Any) -> None:
    def student(**options: Any) -> Any:
        graph = generate_graph(make_config(marian_args={"training-student": options}))
        return graph, graph.tasks[TRAIN].task["extra"]["limbeck"]

    _, far = student(**{"learn-rate": 0.1, "after": "5u"})
    _, near = student(**{"learn-rate": 0.001, "after": "10u"})
    graph, _ = student(**{"learn-rate": 0.001, "after": "20u"})

    class Two(Memory):
        def earlier(self, label: str) -> list[Any]:
            return [far, near] if label == TRAIN else []

    (reason,) = plan(graph, Two()).run[TRAIN]
    assert reason.endswith(" after 10u -> 20u")


MEANING: dict[str, Any] = {
    "digest": "new",
    "stage": "train",
    "version": 3,
    "languages": ["en", "de"],
    "variables": {},
    "parameters": {"vocab-size": 16000, "options": {"a": {"b": [1, 2]}, "c": True}, "split": True},
    "inputs": {"corpus": {"merge-en-de": "d1"}, "models": {"teacher-1": "d2", "teacher-2": "d3"}},
}


@pytest.mark.parametrize(
    ("old", "said"),
    [
        ({"version": 2}, ["stage version 2 -> 3"]),
        ({"languages": ["ru", "en"]}, ["languages ru-en -> en-de"]),
        ({"parameters": {**MEANING["parameters"], "vocab-size": 8000}}, ["spm-vocab-size 8000 -> 16000"]),
        ({"parameters": {"vocab-size": 16000, "options": {"a": {"b": [1, 3]}, "c": True}, "split": True}},
         ["options a b 2 3 -> 2"]),
        ({"parameters": {"vocab-size": 16000, "split": True}},
         ["options a b not set -> [1, 2]", "options c not set -> true"]),
        ({"parameters": {"vocab-size": 16000, "options": MEANING["parameters"]["options"], "split": True, "old": 1}},
         ["old 1 -> not set"]),
        ({"inputs": {**MEANING["inputs"], "corpus": {"merge-en-de": "other"}}}, ["input corpus/parallel changed"]),
        ({"inputs": {**MEANING["inputs"], "corpus": {"continuation-en-de": "other"}}},
         ["input corpus/parallel now comes from merge-en-de"]),
        ({"inputs": {**MEANING["inputs"], "models": {"teacher-1": "d2"}}}, ["input models now has teacher-2"]),
        ({"inputs": {**MEANING["inputs"], "extra": {"x": "d"}}}, ["input extra no longer has x"]),
        ({"inputs": {**MEANING["inputs"], "models": {"teacher-2": "d3", "teacher-1": "d2"}}},
         ["its inputs come in another order"]),
    ],
)  # fmt: skip
def test_every_difference_has_its_words(old: dict[str, Any], said: list[str]) -> None:
    names = {"vocab-size": "spm-vocab-size", "corpus": "corpus/parallel"}
    assert differences(MEANING, {**MEANING, "digest": "old", **old}, names) == said


def test_long_values_are_cut_short() -> None:
    old = {**MEANING, "digest": "old", "parameters": {**MEANING["parameters"], "vocab-size": "x" * 500}}
    assert len(differences(MEANING, old)[0]) < 100


def test_a_finished_model_needs_none_of_its_inputs(make_config: Any) -> None:
    graph = generate_graph(make_config())
    history = Memory.of(graph)
    student = graph.tasks[TRAIN]
    kept = Memory({student.attributes["digest"]: "student"}, history.meanings)
    decided = plan(graph, kept)
    assert decided.reused == {student.label: "student"}
    assert "corpus-align-distillation-en-de" not in decided.run
    assert decided.run["distillation-corpus-build-shortlist-en-de"] == ["what it made is gone"]
    history.tasks = {digest: task for digest, task in history.tasks.items() if not task.startswith("id-of-corpus")}
    assert not plan(graph, history).run


def test_a_damaged_task_runs_again_and_says_so(make_config: Any) -> None:
    graph = generate_graph(make_config())
    history = Memory.of(graph)
    history.damages = {"id-of-all-pipeline-en-de": "no manifest", "id-of-export-en-de": "model.bin does not exist"}
    decided = plan(graph, history)
    assert decided.run["export-en-de"] == [
        "artifacts of export-en-de (id-of-export-en-de) are damaged: model.bin does not exist"
    ]
    assert decided.run.keys() == {"export-en-de", "all-pipeline-en-de"}


def test_what_must_run_anew_takes_its_dependents_along(make_config: Any) -> None:
    graph = generate_graph(make_config())
    fresh = {"export-en-de": "--force-stage"}.get
    assert plan(graph, Memory.of(graph), fresh=fresh).run == {
        "all-pipeline-en-de": ["export-en-de runs anew"],
        "export-en-de": ["--force-stage"],
    }


def test_the_planned_graph_refers_to_reused_tasks_by_id(make_config: Any) -> None:
    graph = generate_graph(make_config())
    history = Memory.of(graph)
    del history.tasks[graph.tasks["export-en-de"].attributes["digest"]]
    del history.tasks[graph.tasks["all-pipeline-en-de"].attributes["digest"]]
    decided = plan(graph, history)
    planned = apply_plan(graph, decided)
    export = next(task for task in planned if task.label == "export-en-de")
    assert "id-of-build-vocab-en-de" in export.task["dependencies"]
    assert '"task": "id-of-build-vocab-en-de"' in export.task["payload"]["env"]["MOZ_FETCHES"]
    assert {task.label for task in planned} == {"export-en-de", "all-pipeline-en-de"}


def named_of(graph: Any, *labels: str) -> dict[str, NamedTask]:
    return {label: NamedTask(f"named-{label}", graph.tasks[label].task["extra"]["limbeck"]) for label in labels}


TEACHER = "train-teacher-model-en-de-1"


def other_teacher(make_config: Any) -> Any:
    return generate_graph(make_config(marian_args={"training-teacher": {"learn-rate": 0.1}}))


def test_what_is_made_from_a_named_task_is_not_taken_for_the_graphs_own(make_config: Any) -> None:
    graph, plain, other = (
        generate_graph(make_config()),
        generate_graph(make_config()),
        other_teacher(make_config),
    )
    decided = plan(graph, Memory(), named=Named(earlier_runs=named_of(other, TEACHER)))
    assert decided.reused == {TEACHER: f"named-{TEACHER}"}
    (although,) = decided.by_name[TEACHER]
    assert although.endswith(" learn-rate 0.1 -> not set")
    for label in graph.tasks:
        same = graph.tasks[label].attributes["digest"] == plain.tasks[label].attributes["digest"]
        of_other = graph.tasks[label].attributes["digest"] == other.tasks[label].attributes["digest"]
        from_teacher = label in (TEACHER, TRAIN, QUANTIZE, "export-en-de", "all-pipeline-en-de")
        if from_teacher:
            assert of_other and not same, label
    assert (
        graph.tasks["build-vocab-en-de"].attributes["digest"] == plain.tasks["build-vocab-en-de"].attributes["digest"]
    )
    meaning = graph.tasks[TRAIN].task["extra"]["limbeck"]
    assert meaning == other.tasks[TRAIN].task["extra"]["limbeck"]
    again = plan(plain, Memory.of(graph))
    assert TEACHER in again.run and TRAIN in again.run


def test_named_runs_give_way_to_what_must_run_anew_and_existing_tasks_do_not(make_config: Any) -> None:
    graph, other = generate_graph(make_config()), other_teacher(make_config)
    named = named_of(other, *other.tasks)
    fresh = {TEACHER: "start-task-prefix is train-teacher"}.get
    decided = plan(graph, Memory.of(graph), fresh=fresh, named=Named(earlier_runs=named))
    assert decided.run[TEACHER] == ["start-task-prefix is train-teacher"]
    assert TRAIN in decided.run and "build-vocab-en-de" in decided.by_name
    existing = Named(existing=named_of(other, TEACHER), earlier_runs=named)
    graph = generate_graph(make_config())
    decided = plan(graph, Memory.of(graph), fresh=fresh, named=existing)
    assert decided.reused == {"all-pipeline-en-de": "named-all-pipeline-en-de"}


def test_a_damaged_named_task_is_made_as_the_graph_says(make_config: Any) -> None:
    graph, plain, other = (
        generate_graph(make_config()),
        generate_graph(make_config()),
        other_teacher(make_config),
    )
    history = Memory(damages={f"named-{TEACHER}": "weights.npz does not exist"})
    decided = plan(graph, history, named=Named(existing=named_of(other, TEACHER)))
    assert decided.run[TEACHER] == [f"artifacts of {TEACHER} (named-{TEACHER}) are damaged: weights.npz does not exist"]
    assert not decided.reused and not decided.by_name
    assert Memory.of(graph) == Memory.of(plain)
