"""What is reused, what runs, and the reasons that are given."""

from typing import Any

from limbeck_taskgraph.generate import generate_graph
from limbeck_taskgraph.reuse import apply_plan, make_plan


def finished(graph: Any) -> dict[str, str]:
    return {task.attributes["digest"]: f"id-of-{task.label}" for task in graph}


def meanings(graph: Any) -> dict[str, Any]:
    return {task.label: task.task["extra"]["limbeck"] for task in graph}


def plan(graph: Any, done: dict[str, str], earlier: dict[str, Any], **more: Any) -> Any:
    return make_plan(graph, ["all-pipeline-en-de"], done.get, earlier.get, **more)


def test_nothing_known_runs_everything(make_config: Any) -> None:
    graph = generate_graph(make_config())
    decided = plan(graph, {}, {})
    assert set(decided.run) == set(graph.tasks)
    assert set(decided.run.values()) == {"has not run before"}


def test_everything_finished_runs_nothing(make_config: Any) -> None:
    graph = generate_graph(make_config())
    decided = plan(graph, finished(graph), meanings(graph))
    assert not decided.run
    assert decided.reused == {"all-pipeline-en-de": "id-of-all-pipeline-en-de"}


def test_a_changed_parameter_runs_what_depends_on_it_and_says_why(make_config: Any) -> None:
    before = generate_graph(make_config())
    after = generate_graph(make_config(marian_args={"training-student": {"learn-rate": 0.001}}))
    decided = plan(after, finished(before), meanings(before))
    assert decided.run["distillation-student-model-train-en-de"] == "options is {'learn-rate': 0.001}, was not set"
    assert decided.run["distillation-student-model-quantize-en-de"] == (
        "its input distillation-student-model-train-en-de changes"
    )
    assert not any(label.startswith(("train-teacher", "corpus-", "dataset-", "build-vocab")) for label in decided.run)


def test_a_new_data_set_is_named(make_config: Any) -> None:
    before = generate_graph(make_config())
    after = generate_graph(make_config(datasets={"train": ["gettext_one", "gettext_two", "gettext_three"]}))
    decided = plan(after, finished(before), meanings(before))
    assert decided.run["corpus-merge-parallel-en-de"] == (
        "its input corpus now has corpus-clean-parallel-gettext-three-en-de"
    )
    assert decided.run["dataset-gettext-three-en-de"] == "has not run before"
    assert "corpus-clean-parallel-gettext-one-en-de" in decided.reused


def test_a_finished_model_needs_none_of_its_inputs(make_config: Any) -> None:
    graph = generate_graph(make_config())
    done = finished(graph)
    student = graph.tasks["distillation-student-model-train-en-de"]
    kept = {student.attributes["digest"]: "student"}
    decided = plan(graph, kept, meanings(graph))
    assert decided.reused == {student.label: "student"}
    assert "corpus-align-distillation-en-de" not in decided.run
    assert "distillation-corpus-build-shortlist-en-de" in decided.run
    gone = {digest: task for digest, task in done.items() if not task.startswith("id-of-corpus")}
    assert not plan(graph, gone, meanings(graph)).run


def test_what_must_run_anew_takes_its_dependents_along(make_config: Any) -> None:
    graph = generate_graph(make_config())
    decided = plan(
        graph,
        finished(graph),
        meanings(graph),
        fresh=lambda label: "--force-stage" if label.startswith("export") else None,
    )
    assert decided.run == {
        "all-pipeline-en-de": "export-en-de runs anew",
        "export-en-de": "--force-stage",
    }


def test_the_planned_graph_refers_to_reused_tasks_by_id(make_config: Any) -> None:
    graph = generate_graph(make_config())
    done = finished(graph)
    del done[graph.tasks["export-en-de"].attributes["digest"]]
    del done[graph.tasks["all-pipeline-en-de"].attributes["digest"]]
    decided = plan(graph, done, meanings(graph))
    planned = apply_plan(graph, decided)
    export = next(task for task in planned if task.label == "export-en-de")
    assert "id-of-build-vocab-en-de" in export.task["dependencies"]
    assert '"task": "id-of-build-vocab-en-de"' in export.task["payload"]["env"]["MOZ_FETCHES"]
    assert {task.label for task in planned} == {"export-en-de", "all-pipeline-en-de"}
