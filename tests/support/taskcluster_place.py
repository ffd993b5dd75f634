"""A Taskcluster deployment with this project's hook, a checkout with a bare repository to push to, and a worker."""

import contextlib
import functools
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import slugid
from taskcluster_server import CLIENT, TOKEN, TaskclusterServer, serve_taskcluster
from taskgraph.actions.registry import render_actions_json
from taskgraph.config import load_graph_config
from taskgraph.parameters import Parameters
from taskgraph.util import taskcluster

from limbeck_engines.taskcluster import Source, TaskclusterEngine
from limbeck_engines.taskcluster_git import Checkout
from limbeck_engines.taskcluster_trigger import Patience
from limbeck_taskgraph.catalogue import ROOT
from limbeck_taskgraph.generate import graph_parameters
from limbeck_taskgraph.hook import hook_definition, hook_name
from limbeck_taskgraph.training_config import TrainingConfig

DEADLINE, EXPIRES = "2098-01-01T00:00:00.000Z", "2099-01-01T00:00:00.000Z"
LOG = "public/logs/live.log"
IDENTITY = ("-c", "user.name=Someone", "-c", "user.email=someone@example.com")


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *IDENTITY, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def definition(label: str, group: str, after: tuple[str, ...] = (), **changes: Any) -> dict[str, Any]:
    """A task of a run, as the decision renders it."""
    meaning = {"digest": label.encode().hex(), "stage": label.rpartition("-")[0], "version": 1, "languages": []}
    return {
        "taskGroupId": group,
        "schedulerId": "limbeck-level-1",
        "taskQueueId": "limbeck/b-cpu",
        "created": "2026-01-01T00:00:00.000Z",
        "deadline": DEADLINE,
        "expires": EXPIRES,
        "dependencies": list(after) or [group],
        "metadata": {"name": label, "description": label, "owner": "a@example.com", "source": "https://example.com"},
        "payload": {"command": [["true"]], "maxRunTime": 60},
        "tags": {"kind": label.rpartition("-")[0]},
        "extra": {"limbeck": {**meaning, "parameters": {}, "variables": {}, "inputs": {}}},
        **changes,
    }


@contextlib.contextmanager
def taskcluster_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["Place"]:
    """A place whose deployment is that of the environment, signed in as a client that may do everything."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name, value in (("CLIENT_ID", CLIENT), ("ACCESS_TOKEN", TOKEN)):
        monkeypatch.setenv(f"TASKCLUSTER_{name}", value)
    monkeypatch.delenv("TASKCLUSTER_CERTIFICATE", raising=False)
    monkeypatch.setattr("pipeline.common.download.RETRY_DELAYS", (0.0, 0.0))
    # taskgraph's own client remembers the deployment.
    for remembered in (taskcluster.get_root_url, taskcluster.get_taskcluster_client, taskcluster.get_session):
        remembered.cache_clear()
    with serve_taskcluster() as server:
        monkeypatch.setenv("TASKCLUSTER_ROOT_URL", server.url)
        yield Place(server, folder)


class Place:
    """What a test acts on."""

    def __init__(self, server: TaskclusterServer, folder: Path) -> None:
        self.server, self.state, self.folder = server, server.state, folder
        self.remote, self.project = folder / "remote.git", folder / "project"
        self.project.mkdir()
        git(folder, "init", "--quiet", "--bare", "--initial-branch=main", str(self.remote))
        git(self.project, "init", "--quiet", "--initial-branch=main")
        shutil.copy(ROOT.parent / ".taskcluster.yml", self.project)
        git(self.project, "add", ".")
        git(self.project, "commit", "--quiet", "-m", "First")
        git(self.project, "remote", "add", "origin", str(self.remote))
        self.graph_config = _graph_config()
        self.state.hooks[hook_name(self.graph_config)] = hook_definition(self.graph_config, str(self.remote))["task"]
        self.ids: dict[str, str] = {}  # label -> task id

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def engine(self, **source: Any) -> TaskclusterEngine:
        source = {"patience": Patience(5.0, 0.02), **source}
        return TaskclusterEngine(self.runs, Source(Checkout(self.project), **source), look=0.02)

    def recorded_group(self, labels: dict[str, tuple[str, ...]], name: str = "test", **changes: Any) -> str:
        """A group in the record whose action has made tasks (label -> labels that it needs); returns its id."""
        group = self.action()
        engine = self.engine()
        engine.store.add_group(
            group, name, "{}", [], engine="taskcluster", url=f"{self.server.url}/tasks/groups/{group}"
        )
        self.add_tasks(group, labels, **changes)
        self.do(group)
        return group

    def action(self) -> str:
        """A task of the action `train`, pending."""
        task_id = slugid.nice()
        own = definition("Action: Train", task_id, tags={"kind": "action-callback"}, extra={}, dependencies=[])
        self.state.create(task_id, own)
        return task_id

    def add_tasks(self, group: str, labels: dict[str, tuple[str, ...]], **changes: Any) -> None:
        for label, after in labels.items():
            self.ids[label] = slugid.nice()
            needed = tuple(self.ids[other] for other in after)
            self.state.create(self.ids[label], definition(label, group, needed, **changes))

    def do(self, task_id: str, state: str = "completed", log: bytes | None = None) -> None:
        """A worker takes a task (by id, or label) and ends it."""
        task_id = self.ids.get(task_id, task_id)
        self.state.claim(task_id)
        if log is not None:
            self.state.add_artifact(task_id, LOG, log)
        self.state.resolve(task_id, state)

    def worker(self, make_tasks: Callable[[str, Any], None] = lambda group, given: None) -> "Worker":
        return Worker(self, make_tasks)


@functools.cache
def _graph_config() -> Any:
    config = load_graph_config(str(ROOT))
    config.register()
    return config


class Worker:
    """Does decision tasks and actions in a thread: `make_tasks` is told the group's id and the action's input."""

    def __init__(self, place: Place, make_tasks: Callable[[str, Any], None]) -> None:
        self._place, self._make_tasks = place, make_tasks
        self._stopped = threading.Event()
        self.errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> "Worker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        if self.errors:
            raise self.errors[0]

    def _work(self) -> None:
        state = self._place.state
        while not self._stopped.wait(0.01):
            with state.lock:
                try:
                    for task_id in [one for one, status in state.statuses.items() if status["state"] == "pending"]:
                        self._do(task_id, state.tasks[task_id])
                except BaseException as error:
                    self.errors.append(error)
                    return

    def _do(self, task_id: str, task: dict[str, Any]) -> None:
        state, kind = self._place.state, task["tags"].get("kind")
        if kind == "decision-task":
            state.claim(task_id)
            state.add_artifact(task_id, "public/actions.json", self._actions(task_id, task))
            state.resolve(task_id)
        elif kind == "action-callback" and "ACTION_INPUT" in task["payload"].get("env", {}):
            state.claim(task_id)
            self._make_tasks(task_id, json.loads(task["payload"]["env"]["ACTION_INPUT"]))
            state.resolve(task_id)

    def _actions(self, task_id: str, task: dict[str, Any]) -> bytes:
        env = task["payload"]["env"]
        given = {
            "head_repository": env["LIMBECK_REPOSITORY"],
            "head_rev": env["LIMBECK_REVISION"],
            "head_ref": env["LIMBECK_REF"],
        }
        parameters = Parameters(**{**graph_parameters(_ANY), **given})
        return json.dumps(render_actions_json(parameters, self._place.graph_config, task_id)).encode()


_ANY = TrainingConfig.model_validate(
    {
        "experiment": {"name": "any", "src": "en", "trg": "de"},
        "datasets": {"train": ["gettext_one"], "devtest": ["gettext_two"], "test": ["gettext_three"]},
    }
)
