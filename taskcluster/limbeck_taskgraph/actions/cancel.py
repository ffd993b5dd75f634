"""The action `cancel`: no further task of a run starts, and those that run are stopped."""

import logging
from typing import Any

from taskgraph.actions.registry import register_callback_action
from taskgraph.util import taskcluster

logger = logging.getLogger(__name__)


@register_callback_action(
    name="cancel",
    cb_name="cancel-run",
    title="Cancel the run",
    symbol="cancel",
    description="Seal the task group and cancel all of its tasks that are not done.",
    order=4,
)
def cancel_action(parameters: Any, graph_config: Any, input: Any, task_group_id: Any, task_id: Any) -> None:
    """taskgraph's callback."""
    if taskcluster.testing:
        logger.info(f"a test: {task_group_id} would be sealed and cancelled")
        return
    queue = taskcluster.get_taskcluster_client("queue")
    # A group that could still grow is not cancelled (409).
    queue.sealTaskGroup(task_group_id)
    cancelled = queue.cancelTaskGroup(task_group_id)
    logger.info(f"cancelled {cancelled['cancelledCount']} of {cancelled['taskGroupSize']} tasks of {task_group_id}")
