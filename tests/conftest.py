"""What all tests share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import settings
from web_server import WebServer, serve
from xdist.scheduler.loadscope import LoadScopeScheduling

from limbeck_taskgraph.config_file import parse_training_config
from limbeck_taskgraph.training_config import TrainingConfig

# The same examples every time: a change is judged by itself, not by the luck of the draw. To search for more:
# pytest --hypothesis-profile=search
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("search", max_examples=1000, deadline=None)
settings.load_profile("repeatable")

PROJECT = Path(__file__).resolve().parent.parent


# Tests that share something costly, and so run in one process: a finished run, a cluster.
_SHARING = {"pipeline_run": "run", "test_slurm_engine": "slurm", "test_slurm_catch_up": "slurm"}


class GroupScheduling(LoadScopeScheduling):
    """Each file's tests run in one process, and so do those of files that share something."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return next((_SHARING[part] for part in Path(path).with_suffix("").parts if part in _SHARING), path)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling:
    return GroupScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first."""
    items.sort(key=lambda item: "pipeline_run" not in item.path.parts)


class ConfigMaker:
    """Makes training configs from the smallest one that is valid."""

    def values(self, **sections: Any) -> dict[str, Any]:
        values: dict[str, Any] = {
            "experiment": {"name": "test", "src": "en", "trg": "de"},
            "datasets": {"train": ["gettext_one", "gettext_two"], "devtest": ["gettext_dev"], "test": ["gettext_test"]},
            "taskcluster": {"split-chunks": 3},
        }
        for key, value in sections.items():
            key = key.replace("_", "-")
            values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
        return values

    def __call__(self, **sections: Any) -> TrainingConfig:
        return parse_training_config(yaml.safe_dump(self.values(**sections)))


@pytest.fixture
def make_config() -> ConfigMaker:
    return ConfigMaker()


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """A web server on this machine; downloads from it do not wait between attempts."""
    monkeypatch.setattr("pipeline.common.download.RETRY_DELAYS", (0.0, 0.0))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve() as server:
        yield server
