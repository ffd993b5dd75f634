"""What a Taskcluster deployment knows of earlier runs: finished tasks by digest, by label and by id."""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import requests
from taskcluster.exceptions import TaskclusterRestFailure
from taskgraph.taskgraph import TaskGraph
from taskgraph.util import taskcluster

from limbeck_taskgraph.deployment import index_path
from limbeck_taskgraph.differences import Meaning
from limbeck_taskgraph.reuse import NamedTask
from pipeline.common.errors import UserError

_LEVELS = ("3", "2", "1")
# Index paths or task ids in one request.
_BATCH = 500
COMPLETED = "completed"


class IndexHistory:
    """Finished tasks of the index, of the graph's own level and of more trusted ones.

    A task that expires before the graph's own tasks have to be done is no longer used.
    """

    def __init__(self, graph: TaskGraph, graph_config: Any, level: str, needed_until: datetime.datetime) -> None:
        self._graph, self._graph_config = graph, graph_config
        self._levels = [other for other in _LEVELS if other >= level]
        self._needed_until = needed_until
        self._found: dict[str, list[str]] = {}

    def finished(self, digest: str) -> Sequence[str]:
        """Ids of the finished tasks of a digest, of the most trusted level first."""
        if digest not in self._found:
            # Tasks that a person names change the digests of what depends on them, so the graph is asked again.
            self._search()
        return self._found.get(digest, [])

    def _search(self) -> None:
        paths = {
            path: task.attributes["digest"]
            for task in self._graph
            if task.attributes["digest"] not in self._found
            for path in self._paths(task)
        }
        self._found |= {digest: [] for digest in paths.values()}
        task_ids: dict[str, str] = {}
        for batch in batches(list(paths)):
            task_ids |= taskcluster.find_task_id_batched(batch)
        statuses = statuses_of(task_ids.values())
        for path, digest in paths.items():
            task_id = task_ids.get(path)
            if task_id is not None and self._is_usable(statuses.get(task_id)):
                self._found[digest].append(task_id)

    def _paths(self, task: Any) -> list[str]:
        languages = [task.attributes["src_locale"], task.attributes["trg_locale"]]
        return [
            index_path(self._graph_config, level, task.kind, languages, task.attributes["digest"])
            for level in self._levels
        ]

    def _is_usable(self, status: Mapping[str, Any] | None) -> bool:
        if status is None or status["state"] != COMPLETED:
            return False
        return datetime.datetime.fromisoformat(status["expires"]) > self._needed_until

    def damage(self, task_id: str) -> str | None:
        """None: the queue keeps what it has."""
        return None

    def earlier(self, label: str) -> Sequence[Meaning]:
        """None: the index finds by digest only."""
        return []


class NoHistory:
    """For a test of an action, which talks to no service."""

    def finished(self, digest: str) -> Sequence[str]:
        return []

    def damage(self, task_id: str) -> str | None:
        return None

    def earlier(self, label: str) -> Sequence[Meaning]:
        return []


def of_earlier_groups(group_ids: Iterable[str]) -> dict[str, NamedTask]:
    """The finished tasks of task groups by label; those of a later group in the list win.

    Raises UserError for a group that is no run of this project.
    """
    found: dict[str, str] = {}
    for group_id in group_ids:
        try:
            found |= taskcluster.get_artifact(group_id, "public/label-to-taskid.json")
        except (TaskclusterRestFailure, requests.RequestException) as error:
            raise UserError(
                f"previous-group-ids: {group_id} has no artifact public/label-to-taskid.json: {error}; needed: the id "
                "of a train action's task, which is also the id of its task group"
            ) from error
    finished = {task_id for task_id, status in statuses_of(found.values()).items() if status["state"] == COMPLETED}
    return _named({label: task_id for label, task_id in found.items() if task_id in finished})


def of_named_tasks(graph: TaskGraph, existing: Mapping[str, str]) -> dict[str, NamedTask]:
    """The tasks that `existing-tasks` names. Raises UserError for a label or task that there is not."""
    statuses = statuses_of(existing.values())
    for label, task_id in existing.items():
        if label not in graph.tasks:
            raise UserError(f"existing-tasks: this config has no task {label}")
        state = statuses.get(task_id, {}).get("state", "unknown to the queue")
        if state != COMPLETED:
            raise UserError(f"existing-tasks: {label}: {task_id} cannot be used: it is {state}")
    found = _named(existing)
    for label in existing.keys() - found.keys():
        raise UserError(f"existing-tasks: {label}: {existing[label]} is no task of this project")
    return found


def _named(task_ids: Mapping[str, str]) -> dict[str, NamedTask]:
    """Those that are stages of this project, with what they mean."""
    definitions: dict[str, Any] = {}
    for batch in batches(list(dict.fromkeys(task_ids.values()))):
        definitions |= taskcluster.get_task_definitions(batch)
    meanings = {task_id: task.get("extra", {}).get("limbeck") for task_id, task in definitions.items()}
    return {
        label: NamedTask(task_id, meanings[task_id]) for label, task_id in task_ids.items() if meanings.get(task_id)
    }


def statuses_of(task_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Status by task id; what the queue does not know is left out."""
    found: dict[str, dict[str, Any]] = {}
    for batch in batches(list(dict.fromkeys(task_ids))):
        found |= taskcluster.status_task_batched(batch)
    return found


def batches(values: Sequence[str]) -> list[list[str]]:
    """The values in parts that one request can take."""
    return [list(values[start : start + _BATCH]) for start in range(0, len(values), _BATCH)]
