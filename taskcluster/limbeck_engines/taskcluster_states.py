"""From what Taskcluster's queue says of a task group to rows of the record."""

import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from limbeck_engines.schedule import path_lengths
from limbeck_engines.store import TaskRow
from limbeck_engines.task import (
    CANCELLED,
    COMPLETED,
    FAILED,
    PENDING,
    REUSED,
    RUNNING,
    SKIPPED,
    Resources,
    Task,
)

ACTION_LABEL = "train-action"  # what the task is called that makes a group's other tasks
_STATES = {
    "unscheduled": PENDING,
    "pending": PENDING,
    "running": RUNNING,
    "completed": COMPLETED,
    "failed": FAILED,
    "exception": FAILED,
}
_REASONS = {
    "canceled": "cancelled",
    "deadline-exceeded": "its deadline passed",
    "claim-expired": "its worker was lost",
    "worker-shutdown": "its worker was taken away",
    "malformed-payload": "its worker does not accept its payload",
    "resource-unavailable": "its worker could not get what the task needs",
    "internal-error": "its worker failed",
    "intermittent-task": "it asked to be run again",
    "superseded": "another task took its place",
}


@dataclass(frozen=True)
class Listed:
    """A task as the queue lists it: its definition and its status."""

    definition: Mapping[str, Any]
    status: Mapping[str, Any]

    @property
    def task_id(self) -> str:
        return str(self.status["taskId"])

    @property
    def is_ours(self) -> bool:
        """Whether it is a task of a graph, and not an action or something that others put into the group."""
        return isinstance(self.definition.get("extra", {}).get("limbeck"), dict)

    @property
    def last_run(self) -> Mapping[str, Any] | None:
        runs: Sequence[Mapping[str, Any]] = self.status["runs"]
        return runs[-1] if runs else None

    @property
    def can_run_again(self) -> bool:
        return self.status["state"] in ("failed", "exception")


def rows_of(
    group_id: str, action: Listed | None, listed: Iterable[Listed], reused: Iterable[Listed] = ()
) -> list[TaskRow]:
    """The rows of a group: the action that made it, then its tasks in an order in which they could run, then those of
    earlier groups that it reuses.

    A task that waits for one that failed, or was cancelled, is skipped, with the label of that one as the reason.
    """
    tasks = {task.task_id: task for task in listed if task.task_id != group_id}
    lengths = path_lengths([_as_task(task) for task in tasks.values()])
    ordered = sorted(tasks.values(), key=lambda task: (-lengths[task.task_id], _label(task)))
    if action is not None:
        ordered.insert(0, action)
    # Tasks of others may stand between ours.
    failures = _failures(group_id, ordered)
    ours = [task for task in ordered if task is action or task.is_ours]
    rows = [
        _row(group_id, position, task, failures.get(task.task_id), is_action=task is action)
        for position, task in enumerate(ours)
    ]
    earlier = [_row(group_id, position, task, None, False) for position, task in enumerate(reused, len(rows))]
    return rows + [replace(row, state=REUSED) for row in earlier]


def group_state(rows: Sequence[TaskRow]) -> str:
    """The state of a group with these tasks."""
    states = {row.state for row in rows}
    if RUNNING in states:
        return RUNNING
    if PENDING in states:
        return RUNNING if COMPLETED in states else PENDING
    return next((state for state in (FAILED, SKIPPED, CANCELLED) if state in states), COMPLETED).replace(
        SKIPPED, FAILED
    )


def _as_task(task: Listed) -> Task:
    dependencies = tuple(task.definition.get("dependencies", []))
    return Task(task.task_id, _label(task), dict(task.definition), dependencies, digest="")


def _label(task: Listed) -> str:
    return str(task.definition.get("tags", {}).get("label") or task.definition["metadata"]["name"])


def _failures(group_id: str, ordered: Sequence[Listed]) -> dict[str, str]:
    """For each task that waits in vain, the label of the task that it waits for. `ordered`: dependencies first."""
    broken: dict[str, str] = {}
    cause: dict[str, str] = {}
    for task in ordered:
        state = task.status["state"]
        upstream = task.definition.get("dependencies", [])
        if task.definition.get("requires", "all-completed") == "all-completed":
            found = next((broken[other] for other in upstream if other in broken), None)
            ended_waiting = state == "exception" and _resolution(task) == "deadline-exceeded" and not _started(task)
            if found is not None and (state == "unscheduled" or ended_waiting):
                cause[task.task_id] = broken[task.task_id] = found
                continue
        if state in ("failed", "exception"):
            broken[task.task_id] = ACTION_LABEL if task.task_id == group_id else _label(task)
    return cause


def _row(group_id: str, position: int, task: Listed, cause: str | None, is_action: bool) -> TaskRow:
    definition = dict(task.definition)
    if is_action:
        # What reads the record expects a meaning; that of an action is its own, and no task of a graph has it.
        definition["extra"] = {**definition.get("extra", {}), "limbeck": _meaning_of_action(task)}
    run = task.last_run
    state, reason = (SKIPPED, cause) if cause is not None else _state(task)
    return TaskRow(
        task_id=task.task_id,
        group_id=group_id,
        position=position,
        label=ACTION_LABEL if is_action else _label(task),
        digest=str(definition["extra"]["limbeck"]["digest"]),
        state=state,
        run=run["runId"] if run is not None and run.get("started") else None,
        exit_code=None,
        reason=reason,
        started=_seconds(run.get("started")) if run is not None else None,
        finished=_seconds(run.get("resolved")) if run is not None else None,
        pid=None,
        pid_started=None,
        reused_from=None,
        definition_json=json.dumps(definition, ensure_ascii=False),
        dependencies_json=json.dumps(definition.get("dependencies", [])),
        resources_json=json.dumps(asdict(Resources())),
        job=task.task_id,
    )


def _meaning_of_action(task: Listed) -> dict[str, Any]:
    return {
        "digest": task.task_id.encode().hex(),
        "stage": ACTION_LABEL,
        "version": 1,
        "languages": [],
        "variables": {},
        "parameters": {},
        "inputs": {},
    }


def _state(task: Listed) -> tuple[str, str | None]:
    """State and reason of a task that does not wait in vain."""
    state, runs = task.status["state"], task.status["runs"]
    resolution = _resolution(task)
    if state == "exception":
        if resolution == "canceled":
            return CANCELLED, _REASONS["canceled"]
        return FAILED, _REASONS.get(resolution, resolution or "exception")
    if state == "failed":
        return FAILED, "failed"
    if state in ("pending", "running") and len(runs) > 1:
        earlier = runs[-2].get("reasonResolved", "")
        return _STATES[state], f"run {len(runs)}, as {_REASONS.get(earlier, f'the one before {earlier}')}"
    return _STATES[state], None


def _resolution(task: Listed) -> str:
    return str((task.last_run or {}).get("reasonResolved", ""))


def _started(task: Listed) -> bool:
    return any(run.get("started") for run in task.status["runs"])


def _seconds(time: str | None) -> float | None:
    return None if time is None else datetime.datetime.fromisoformat(time).timestamp()
