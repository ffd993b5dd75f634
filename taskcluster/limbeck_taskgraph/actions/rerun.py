"""The action `rerun`: failed tasks of a run once more; what waits for them follows by itself."""

import logging
from typing import Any

from taskgraph.actions.registry import register_callback_action
from taskgraph.util import taskcluster

from pipeline.common.errors import UserError

logger = logging.getLogger(__name__)
_FAILED = ("failed", "exception")


@register_callback_action(
    name="rerun",
    cb_name="rerun-run",
    title="Rerun failed tasks",
    symbol="rerun",
    description="Run the failed tasks of the group once more; the tasks that wait for them run after them.",
    order=3,
)
def rerun_action(parameters: Any, graph_config: Any, input: Any, task_group_id: Any, task_id: Any) -> None:
    """taskgraph's callback.

    Raises UserError when tasks that wait for failed ones were themselves resolved (cancelled, or past their deadline):
    the queue would run those at once, without their inputs.
    """
    if taskcluster.testing:
        logger.info(f"a test: failed tasks of {task_group_id} would be run again")
        return
    again, lost = sort_failures(_tasks_of(task_group_id))
    for failed in sorted(again):
        taskcluster.rerun_task(failed)
        logger.info(f"runs again: {again[failed]} ({failed})")
    if not again:
        logger.info("no task failed")
    if lost:
        raise UserError(
            f"{len(lost)} tasks ended before what they wait for, such as {min(lost.values())}: start the run anew with "
            "the action train and the same config; what is finished is reused"
        )


def sort_failures(tasks: list[dict[str, Any]]) -> tuple[dict[str, str], dict[str, str]]:
    """Label by task id: what can run again, and what ended although it waits for tasks that are not done.

    `tasks` are those of a group as the queue lists them (status and task).
    """
    states = {item["status"]["taskId"]: item["status"]["state"] for item in tasks}
    again, lost = dict[str, str](), dict[str, str]()
    for item in tasks:
        task_id, name = item["status"]["taskId"], item["task"]["metadata"]["name"]
        if states[task_id] not in _FAILED:
            continue
        # Tasks of other groups were finished when the run began.
        upstream = item["task"].get("dependencies", [])
        waits = any(states.get(dependency, "completed") != "completed" for dependency in upstream)
        (lost if waits else again)[task_id] = name
    return again, lost


def _tasks_of(group_id: str) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = []
    queue = taskcluster.get_taskcluster_client("queue")
    queue.listTaskGroup(group_id, paginationHandler=lambda page: tasks.extend(page["tasks"]))
    return tasks
