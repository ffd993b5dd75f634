"""Graphs as a Taskcluster deployment gets them."""

from collections.abc import Iterator
from typing import Any

import pytest
import taskgraph.util.taskcluster as tc
import yaml
from decision_services import Services, serve_decisions
from taskgraph.generator import TaskGraphGenerator
from taskgraph.parameters import Parameters
from taskgraph.util.parameterization import resolve_timestamps
from taskgraph.util.time import current_json_time

from limbeck_taskgraph.catalogue import ROOT
from limbeck_taskgraph.generate import taskcluster_parameters
from limbeck_taskgraph.training_config import TrainingConfig

REPOSITORY, REVISION = "https://git.example.com/people/limbeck.git", "0123456789" * 4
DECISION = "Cl6hKhyWSjmrB9tXLWhJYg"

Definitions = dict[str, dict[str, Any]]


class Deployment:
    """Renders for a deployment whose config.yml a test may change."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._settings: dict[str, Any] = yaml.safe_load((ROOT / "config.yml").read_text(encoding="utf-8"))

    def use(self, implementation: str) -> "Deployment":
        """Have all workers of one implementation."""
        for alias in self._settings["workers"]["aliases"].values():
            if alias["provisioner"] != "built-in":
                alias["implementation"] = implementation
        return self

    def set(self, **values: Any) -> "Deployment":
        """Change the section `deployment`."""
        self._settings["deployment"] |= {key.replace("_", "-"): value for key, value in values.items()}
        return self

    def generator(self, config: TrainingConfig, **parameters: Any) -> TaskGraphGenerator:
        """taskgraph at work on the config."""
        self._monkeypatch.setenv("TASKGRAPH_SERIAL", "1")
        self._monkeypatch.setattr("taskgraph.config.load_yaml", lambda _: self._settings)
        values = {
            **taskcluster_parameters(config, REPOSITORY, "refs/heads/main", REVISION, "a@example.com")
        } | parameters
        return TaskGraphGenerator(str(ROOT), Parameters(**values), decision_task_id=DECISION)

    def render(self, config: TrainingConfig, **parameters: Any) -> Definitions:
        """Definitions as the queue gets them, by label."""
        graph = self.generator(config, **parameters).morphed_task_graph
        now = current_json_time(datetime_format=True)
        return {task.label: resolve_timestamps(now, task.task) for task in graph}


@pytest.fixture
def deployment(monkeypatch: pytest.MonkeyPatch) -> Deployment:
    return Deployment(monkeypatch)


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """Taskcluster's services, and taskgraph asking them as in a task that has the proxy."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("TASKGRAPH_SERIAL", "1")
    with serve_decisions() as served:
        monkeypatch.setenv("TASKCLUSTER_PROXY_URL", served.url)
        monkeypatch.setenv("TASKCLUSTER_ROOT_URL", served.url)
        _forget_clients()
        yield served
    _forget_clients()


def _forget_clients() -> None:
    for cached in (tc.get_root_url, tc.get_taskcluster_client, tc.get_session):
        cached.cache_clear()
    tc._task_definitions_cache.cache.clear()
