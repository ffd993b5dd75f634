"""What a Taskcluster deployment keeps: tasks, groups, the index, hooks and artifacts, and the rules between them."""

import copy
import datetime
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jsone
import slugid

END = ("completed", "failed", "exception")


class Refusal(Exception):
    """An answer that is an error, as the services give it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


@dataclass
class Artifact:
    request: dict[str, Any]
    content: bytes | None = None  # None until it is stored
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Group:
    scheduler: str
    tasks: list[str] = field(default_factory=list)
    sealed: bool = False


class State:
    """The deployment, and what its workers do to it. Every method is called under `lock` by the server."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.tasks: dict[str, dict[str, Any]] = {}
        self.statuses: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, Group] = {}
        self.index: dict[str, dict[str, Any]] = {}
        self.hooks: dict[tuple[str, str], Any] = {}
        self.artifacts: dict[tuple[str, int, str], Artifact] = {}
        self.check: Callable[[Any, str], None] = lambda value, schema: None

    # Tasks

    def create(self, task_id: str, definition: Mapping[str, Any]) -> dict[str, Any]:
        self.check(definition, "queue__v1__create-task-request")
        given = copy.deepcopy(dict(definition))
        queue = given.get("taskQueueId") or f"{given['provisionerId']}/{given['workerType']}"
        full = {
            "provisionerId": queue.split("/")[0],
            "workerType": queue.split("/")[1],
            "taskQueueId": queue,
            "schedulerId": "-",
            "projectId": "none",
            "taskGroupId": task_id,
            "dependencies": [],
            "requires": "all-completed",
            "routes": [],
            "priority": "lowest",
            "retries": 5,
            "expires": given["deadline"],
            "scopes": [],
            "tags": {},
            "extra": {},
            **given,
        }
        if task_id in self.tasks:
            if self.tasks[task_id] != full:
                raise Refusal(409, "RequestConflict", f"taskId {task_id} already used by another task")
            return self.statuses[task_id]
        group = self.groups.setdefault(full["taskGroupId"], Group(full["schedulerId"]))
        if group.sealed:
            raise Refusal(409, "RequestConflict", f"Task group {full['taskGroupId']} is sealed")
        if group.scheduler != full["schedulerId"]:
            raise Refusal(409, "RequestConflict", "Task group contains tasks with schedulerId " + group.scheduler)
        for dependency in full["dependencies"]:
            if dependency not in self.tasks:
                raise Refusal(400, "InputError", f"Task dependency {dependency} does not exist")
        self.tasks[task_id] = full
        self.statuses[task_id] = {
            "taskId": task_id,
            **{key: full[key] for key in ("provisionerId", "workerType", "taskQueueId", "schedulerId", "projectId")},
            **{key: full[key] for key in ("taskGroupId", "priority", "deadline", "expires")},
            "retriesLeft": full["retries"],
            "state": "unscheduled",
            "runs": [],
        }
        group.tasks.append(task_id)
        self._schedule(task_id)
        return self.statuses[task_id]

    def _schedule(self, task_id: str) -> None:
        """Make a task pending when what it needs is there."""
        task, status = self.tasks[task_id], self.statuses[task_id]
        wanted = END if task["requires"] == "all-resolved" else ("completed",)
        if status["state"] == "unscheduled" and all(
            self.statuses[other]["state"] in wanted for other in task["dependencies"]
        ):
            self._add_run(task_id, "scheduled")
            if task["taskQueueId"] == "built-in/succeed":
                self.claim(task_id)
                self.resolve(task_id)

    def _add_run(self, task_id: str, reason: str) -> None:
        status = self.statuses[task_id]
        run = {"runId": len(status["runs"]), "state": "pending", "reasonCreated": reason, "scheduled": now()}
        status["runs"].append(run)
        status["state"] = "pending"

    def claim(self, task_id: str) -> None:
        """A worker takes a pending task."""
        status = self.statuses[task_id]
        assert status["state"] == "pending", f"{task_id} is {status['state']}"
        status["state"] = "running"
        status["runs"][-1] |= {
            "state": "running",
            "started": now(),
            "workerGroup": "here",
            "workerId": "one",
            "takenUntil": now(),
        }

    def resolve(self, task_id: str, state: str = "completed", reason: str | None = None) -> None:
        """The last run of a task ends; what waits for it is scheduled, and its routes enter the index."""
        status, task = self.statuses[task_id], self.tasks[task_id]
        if not status["runs"]:
            self._add_run(task_id, "exception")
        status["state"] = state
        status["runs"][-1] |= {"state": state, "reasonResolved": reason or state, "resolved": now()}
        if state == "completed":
            for route in task["routes"]:
                if route.startswith("index."):
                    self.insert(route.removeprefix("index."), task_id)
        for other in [other for other, found in self.tasks.items() if task_id in found["dependencies"]]:
            self._schedule(other)

    def lose(self, task_id: str, reason: str = "claim-expired") -> None:
        """A running task loses its worker: a new run is made."""
        self.statuses[task_id]["runs"][-1] |= {"state": "exception", "reasonResolved": reason, "resolved": now()}
        self.statuses[task_id]["retriesLeft"] -= 1
        self._add_run(task_id, "retry")

    def rerun(self, task_id: str) -> dict[str, Any]:
        status = self.status(task_id)
        if status["state"] not in ("pending", "running"):
            # As the queue does it: whatever the task's dependencies are.
            self._add_run(task_id, "rerun")
        return status

    def cancel(self, task_id: str) -> dict[str, Any]:
        status = self.status(task_id)
        if status["state"] not in END:
            self.resolve(task_id, "exception", "canceled")
        return status

    def cancel_group(self, group_id: str) -> dict[str, Any]:
        group = self.group(group_id)
        if not group.sealed:
            raise Refusal(409, "RequestConflict", f"Task group {group_id} is not sealed")
        cancelled = [task_id for task_id in group.tasks if self.statuses[task_id]["state"] not in END]
        for task_id in cancelled:
            self.cancel(task_id)
        return {
            "taskGroupId": group_id,
            "taskGroupSize": len(group.tasks),
            "cancelledCount": len(cancelled),
            "taskIds": cancelled,
        }

    def status(self, task_id: str) -> dict[str, Any]:
        if task_id not in self.statuses:
            raise Refusal(404, "ResourceNotFound", f"`{task_id}` does not correspond to a task that exists.")
        return self.statuses[task_id]

    def group(self, group_id: str) -> Group:
        if group_id not in self.groups:
            raise Refusal(404, "ResourceNotFound", f"No task-group with taskGroupId: `{group_id}`")
        return self.groups[group_id]

    # Index, hooks, artifacts

    def insert(self, path: str, task_id: str) -> None:
        expires = self.tasks[task_id]["expires"]
        self.index[path] = {"namespace": path, "taskId": task_id, "rank": 0, "data": {}, "expires": expires}

    def trigger(self, group: str, hook: str, payload: Any) -> dict[str, Any]:
        if (group, hook) not in self.hooks:
            raise Refusal(404, "ResourceNotFound", f"No such hook {group}/{hook}")
        task_id = slugid.nice()
        definition = jsone.render(self.hooks[group, hook], {"payload": payload, "taskId": task_id})
        if definition is None:
            return {}
        return {"taskId": task_id, "status": self.create(task_id, definition)}

    def run_of(self, task_id: str, run: int | None) -> int:
        runs = self.status(task_id)["runs"]
        if run is None:
            run = len(runs) - 1
        if not 0 <= run < len(runs):
            raise Refusal(404, "ResourceNotFound", f"Task not found, or run {run} does not exist")
        return run

    def put_artifact(self, task_id: str, run: int, name: str, request: Mapping[str, Any]) -> Artifact:
        self.check(request, "queue__v1__post-artifact-request")
        self.run_of(task_id, run)
        if self.statuses[task_id]["runs"][run]["state"] != "running":
            raise Refusal(409, "RequestConflict", f"Artifacts cannot be created for run {run}, which is not running")
        if request["expires"] > self.tasks[task_id]["expires"]:
            raise Refusal(400, "InputError", "Artifact expires after the task expires")
        known = self.artifacts.get((task_id, run, name))
        if known is not None and known.request != request:
            raise Refusal(409, "RequestConflict", f"Artifact {name} already exists, with different details")
        return self.artifacts.setdefault((task_id, run, name), Artifact(dict(request)))

    def add_artifact(self, task_id: str, name: str, content: bytes, **headers: str) -> None:
        """A worker uploads an artifact of the newest run."""
        request = {"storageType": "s3", "contentType": "application/octet-stream", "expires": now()}
        request["contentLength"] = len(content)  # type: ignore[assignment]
        run = self.run_of(task_id, None)
        self.artifacts[task_id, run, name] = Artifact(request, content, headers)

    def list_artifacts(self, task_id: str, run: int) -> list[dict[str, Any]]:
        names = sorted(key[2] for key in self.artifacts if key[:2] == (task_id, run))
        found = []
        for name in names:
            request = self.artifacts[task_id, run, name].request
            keys = ("storageType", "expires", "contentType", "contentLength")
            entry = {key: request[key] for key in keys if key in request}
            found.append({"name": name, "contentType": "application/json", **entry})
        return found


def scope_satisfied(scope: str, held: list[str]) -> bool:
    return any(scope == one or (one.endswith("*") and scope.startswith(one[:-1])) for one in held)


def is_id(text: str) -> bool:
    return re.fullmatch(r"[\w-]{8}[Q-T][\w-][CGKOSWaeimquy26-][\w-]{10}[AQgw]", text) is not None
