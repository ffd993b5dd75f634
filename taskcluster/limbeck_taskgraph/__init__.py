"""Training config in, task graph out. Pure: nothing here runs a task or touches the network."""

from typing import Any


def register(graph_config: Any) -> None:
    """taskgraph's entry point: make the project's parameters and target methods known."""
    from limbeck_taskgraph import parameters, target_tasks

    parameters.register()
    target_tasks.register()
