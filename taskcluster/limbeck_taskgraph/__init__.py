"""Training config in, task graph out. Rendering is pure: it runs no task and touches no network.

What a Taskcluster deployment runs of this package (decision, actions, taskcluster_worker) does talk to its services.
"""

from typing import Any


def register(graph_config: Any) -> None:
    """taskgraph's entry point: make the project's parameters, targets, limits and actions known."""
    # Limits and actions are known once their modules are loaded.
    from limbeck_taskgraph import graph_limits, parameters, target_tasks  # noqa: F401
    from limbeck_taskgraph.actions import cancel, evaluate, rerun, train  # noqa: F401

    parameters.register()
    target_tasks.register()
