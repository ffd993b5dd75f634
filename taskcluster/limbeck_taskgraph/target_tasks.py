"""Which tasks a training config asks for."""

from typing import Any

from taskgraph.target_tasks import register_target_task

METHOD = "train-target-tasks"


class UnknownStage(Exception):
    """`target-stage` names nothing that this config has tasks for."""


def register() -> None:
    """Make the method known to taskgraph under its name."""
    register_target_task(METHOD)(train_target_tasks)


def train_target_tasks(full_task_graph: Any, parameters: Any, graph_config: Any) -> list[str]:
    """Labels of the tasks whose stage or kind is the config's `target-stage`. None without a training config.

    Raises UnknownStage with the stages there are.
    """
    if not parameters["training_config"]:
        return []
    wanted = parameters["training_config"]["target-stage"]
    labels = [label for label, task in full_task_graph.tasks.items() if wanted in (task.attributes["stage"], task.kind)]
    if not labels:
        stages = sorted({task.attributes["stage"] for task in full_task_graph.tasks.values()})
        raise UnknownStage(f"target-stage: found {wanted!r}; stages of this config: {', '.join(stages)}")
    return labels
