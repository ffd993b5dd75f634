"""What a deployment's queue has of groups and tasks: the requests, and what they give."""

import json
import logging
from collections.abc import Sequence
from typing import Any

from limbeck_engines.taskcluster_client import Deployment, NotFoundError
from limbeck_engines.taskcluster_states import Listed
from pipeline.common.download import stream
from pipeline.common.errors import TransientError, UserError

logger = logging.getLogger(__name__)

_LABELS = "public/label-to-taskid.json"
_HIDDEN = ("public/logs/", "public/checkpoint/")  # artifacts that are no results
_BATCH = 500  # tasks that are asked for at once


def read_group(deployment: Deployment, group_id: str) -> list[Listed]:
    """The tasks of a group, and that of its action if it lies elsewhere; none when the deployment has forgotten them.

    Raises UserError and TransientError as `Deployment.ask` does.
    """
    listed = _listed(deployment, group_id)
    if any(task.task_id == group_id for task in listed):
        return listed
    try:
        status = deployment.ask(f"the task {group_id}", deployment.queue.status, group_id)["status"]
        action = Listed(deployment.ask(f"the task {group_id}", deployment.queue.task, group_id), status)
    except NotFoundError:
        return listed
    # It may have made tasks since they were listed, and whoever sees it done takes the list to be whole.
    return [action, *(_listed(deployment, group_id) if status["state"] == "completed" else listed)]


def _listed(deployment: Deployment, group_id: str) -> list[Listed]:
    what = f"the task group {group_id}"
    try:
        entries = list(deployment.pages(what, deployment.queue.listTaskGroup, "tasks", {"taskGroupId": group_id}))
    except NotFoundError:
        return []  # there is none before its first task
    return [Listed(entry["task"], entry["status"]) for entry in entries]


def read_tasks(deployment: Deployment, task_ids: Sequence[str]) -> list[Listed]:
    """Tasks of whichever groups, in this order; those that the deployment has forgotten are left out."""
    definitions: dict[str, Any] = {}
    statuses: dict[str, Any] = {}
    for start in range(0, len(task_ids), _BATCH):
        payload = {"taskIds": list(task_ids[start : start + _BATCH])}
        for entry in deployment.pages("tasks", deployment.queue.tasks, "tasks", {}, payload):
            definitions[entry["taskId"]] = entry["task"]
        for entry in deployment.pages("tasks", deployment.queue.statuses, "statuses", {}, payload):
            statuses[entry["taskId"]] = entry["status"]
    known = definitions.keys() & statuses.keys()
    return [Listed(definitions[task_id], statuses[task_id]) for task_id in task_ids if task_id in known]


def read_labels(deployment: Deployment, action_id: str) -> dict[str, str]:
    """Task id by label of all that a run stands on, also of earlier groups, as its action noted it; empty without."""
    try:
        found = json.loads(b"".join(stream(deployment.artifact_url(action_id, None, _LABELS))))
        return {str(label): str(task_id) for label, task_id in found.items()}
    except (UserError, TransientError, ValueError, AttributeError) as error:
        logger.info(f"what the run {action_id} reuses is not known: {error}")
        return {}


def read_artifacts(deployment: Deployment, task_id: str) -> tuple[int, list[dict[str, Any]]]:
    """The newest run of a completed task, and its results by name as the queue lists them.

    Raises UserError when it is not completed. What its worker could not upload is named in the log.
    """
    status = deployment.ask(f"the task {task_id}", deployment.queue.status, task_id)["status"]
    if status["state"] != "completed":
        raise UserError(f"{task_id} has no artifacts: it is {status['state']}")
    run = int(status["runs"][-1]["runId"])
    params = {"taskId": task_id, "runId": str(run)}
    what = f"the artifacts of {task_id}"
    entries = list(deployment.pages(what, deployment.queue.listArtifacts, "artifacts", params))
    for entry in entries:
        if entry["storageType"] == "error":
            logger.warning(f"{task_id}: its worker could not upload {entry['name']}")
    results = [one for one in entries if one["storageType"] != "error" and not one["name"].startswith(_HIDDEN)]
    return run, sorted(results, key=lambda entry: str(entry["name"]))
