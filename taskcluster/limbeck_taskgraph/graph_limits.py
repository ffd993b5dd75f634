"""What the queue and taskgraph can bear: how many tasks one depends on, and how many stand in a row."""

import json
from collections.abc import Mapping
from typing import Any

from slugid import nice
from taskgraph.morph import amend_taskgraph, register_morph
from taskgraph.task import Task
from taskgraph.taskgraph import TaskGraph
from taskgraph.util.verify import verifications

from limbeck_taskgraph.deployment import deployment_of, repository_page
from pipeline.common.errors import UserError

MOST_RETRIES = 49  # what the queue's schema allows


@verifications.add("full_task_graph")
def check_depth(task: Any, graph: Any, scratch_pad: Any, graph_config: Any, parameters: Any) -> None:
    """Raise UserError when more tasks stand in a row than `max-depth`; taskgraph creates them recursively."""
    if task is not None or parameters["engine"] != "taskcluster":
        return
    limit = deployment_of(graph_config).max_depth
    if (found := depth(graph)) > limit:
        raise UserError(
            f"{found} tasks of the graph stand in a row, but deployment.max-depth in taskcluster/config.yml is {limit}"
        )


def depth(graph: TaskGraph) -> int:
    """How many tasks stand in the longest row."""
    depths: dict[str, int] = {}
    links: Mapping[str, set[str]] = graph.graph.links_dict()
    for label in graph.graph.visit_postorder():
        depths[label] = 1 + max((depths[upstream] for upstream in links[label]), default=0)
    return max(depths.values(), default=0)


@register_morph
def name_sources(
    graph: TaskGraph, label_to_taskid: dict[str, str], parameters: Any, graph_config: Any
) -> tuple[TaskGraph, dict[str, str]]:
    """Say in every definition where it comes from, in an address that the queue accepts."""
    source = f"{repository_page(parameters['head_repository'])}/tree/{parameters['head_rev']}/taskcluster/kinds"
    for task in graph.tasks.values():
        task.task["metadata"]["source"] = f"{source}/{task.kind}"
    return graph, label_to_taskid


@register_morph
def allow_preemptions(
    graph: TaskGraph, label_to_taskid: dict[str, str], parameters: Any, graph_config: Any
) -> tuple[TaskGraph, dict[str, str]]:
    """Let tasks that go on from checkpoints be interrupted often: every machine taken away uses up a retry."""
    for task in graph.tasks.values():
        if "$LIMBECK_CHECKPOINTS" in json.dumps(task.task.get("payload", {}).get("command", "")):
            task.task["retries"] = MOST_RETRIES
    return graph, label_to_taskid


@register_morph
def gather_dependencies(
    graph: TaskGraph, label_to_taskid: dict[str, str], parameters: Any, graph_config: Any
) -> tuple[TaskGraph, dict[str, str]]:
    """Put tasks that do nothing between a task and its dependencies where it has more than `max-dependencies`."""
    limit = deployment_of(graph_config).max_dependencies
    added = []
    for task in graph.tasks.values():
        dependencies = task.task.get("dependencies", [])
        if len(dependencies) <= limit:
            continue
        parts = [dependencies[start : start + limit] for start in range(0, len(dependencies), limit)]
        gatherers = [_gatherer(task, number, part, graph) for number, part in enumerate(parts, 1)]
        if len(gatherers) > limit:
            raise UserError(
                f"{task.label} depends on {len(dependencies)} tasks, but deployment.max-dependencies in "
                f"taskcluster/config.yml is {limit}, and so no more than {limit * limit} can be gathered"
            )
        task.task["dependencies"] = [gatherer.task_id for gatherer in gatherers]
        added += gatherers
    return amend_taskgraph(graph, label_to_taskid, added) if added else (graph, label_to_taskid)


def _gatherer(task: Task, number: int, dependencies: list[str], graph: TaskGraph) -> Task:
    label = f"{task.label}-inputs-{number}"
    definition = {
        **{key: task.task[key] for key in ("created", "deadline", "expires", "priority")},
        "provisionerId": "built-in",
        "workerType": "succeed",
        "dependencies": list(dependencies),
        "metadata": {**task.task["metadata"], "name": label, "description": f"Wait for inputs of {task.label}"},
        "scopes": [],
        "routes": [],
        "tags": {**task.task["tags"], "label": label},
        "extra": {},
        "payload": {},
    }
    gatherer = Task(
        kind=task.kind,
        label=label,
        attributes={},
        task=definition,
        # Those of earlier runs are no part of the graph.
        dependencies={task_id: task_id for task_id in dependencies if task_id in graph.tasks},
    )
    gatherer.task_id = nice()
    return gatherer
