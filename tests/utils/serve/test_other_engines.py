"""Runs of an engine that has logs and artifacts elsewhere, and must be asked for what became of them."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_graphs import make_task
from serve_site import Site, serve_site
from web_server import WebServer

import limbeck_engines
from limbeck_engines.base import Engine, GroupStatus
from limbeck_engines.display import Display
from limbeck_engines.store import Store
from limbeck_engines.task import Summary, Task
from pipeline.common.errors import TransientError, UserError


class FarEngine(Engine):
    """Writes into the record what it hears from afar, which takes a while, or fails."""

    attended = False
    answers = threading.Event()
    is_down = False
    curve = "https://far.example/train.jsonl"

    def submit(self, group_id: str, name: str, tasks: list[Task], config_text: str) -> str:
        raise NotImplementedError

    def run(self, group_id: str, display: Display | None = None) -> Summary:
        raise NotImplementedError

    def restart(self, group_id: str) -> None:
        raise NotImplementedError

    def cancel(self, group_id: str) -> None:
        raise NotImplementedError

    def status(self, group_id: str) -> GroupStatus:
        if FarEngine.is_down:
            raise TransientError("nobody answers")
        assert FarEngine.answers.wait(30)
        self.store.update_task("task", state="completed", run=0, started=1.0, finished=2.0)
        self.store.update_group(group_id, state="completed")
        return GroupStatus(self.store.group(group_id), self.store.tasks(group_id), {})

    def log_lines(self, task_id: str, follow: bool = False) -> Iterator[str]:
        yield from ("a far\n", "log\n")

    def artifacts(self, task_id: str) -> dict[str, Path | str]:
        return {"public/build/model.npz": "https://far.example/model.npz", "public/build/train.jsonl": FarEngine.curve}


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    FarEngine.answers.clear()
    FarEngine.is_down = False
    known = limbeck_engines.engine_class
    for place in ("limbeck_engines", "utils.serve.records", "utils.common"):
        monkeypatch.setattr(f"{place}.engine_class", lambda name: FarEngine if name == "far" else known(name))
    store = Store(tmp_path / "runs")
    task = make_task("task")
    store.add_group(
        "group",
        "A far run",
        "",
        [Task(task.task_id, task.label, {**task.definition, "tags": {"kind": "train"}}, (), task.digest)],
        engine="far",
        url="https://far.example/group",
    )
    store.update_group("group", state="running")
    with serve_site(tmp_path / "runs") as site:
        yield site
    FarEngine.answers.set()


def test_pages_do_not_wait_for_an_engine(far: Site) -> None:
    started = time.monotonic()
    assert far.json("/run/group/live")["tasks"] == {"task": "pending"}
    assert time.monotonic() - started < 5
    FarEngine.answers.set()
    deadline = time.monotonic() + 20
    while far.json("/run/group/live")["tasks"] != {"task": "completed"}:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "https://far.example/group" in far.page("/run/group")


def test_logs_and_artifacts_that_are_elsewhere(far: Site) -> None:
    FarEngine.answers.set()
    deadline = time.monotonic() + 20
    while "completed" not in far.page("/task/task"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    page = far.page("/task/task")
    assert '<a href="https://far.example/model.npz">model.npz</a>' in page
    assert [text for text, _ in far.json("/task/task/log")["lines"]] == ["a far", "log"]
    assert far.json("/task/task/log?offset=2")["lines"] == []
    assert far.get("/task/task/log.txt").text == "a far\nlog\n"
    answer = far.get("/api/queue/v1/task/task/artifacts/public/build/model.npz")
    assert (answer.status_code, answer.headers["Location"]) == (303, "https://far.example/model.npz")
    listed = far.json("/api/queue/v1/task/task/artifacts")["artifacts"]
    assert listed[0]["storageType"] == "reference"


def test_the_curve_of_a_training_elsewhere(far: Site, web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FarEngine, "curve", web.put("/train.jsonl", b'{"update": 3, "chrf": 1.5}\n'))
    FarEngine.answers.set()
    deadline = time.monotonic() + 20
    while 'value="task" checked' not in far.page("/curves"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for _ in range(2):
        figures = far.json("/curves/data?task=task")["figures"]
        assert [(figure["key"], figure["data"][0]["y"]) for figure in figures] == [("chrf", [1.5])]
    assert len(web.requests) == 1, "it is fetched once"


def test_an_engine_that_does_not_answer_hides_nothing(far: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    FarEngine.is_down = True
    for _ in range(3):
        assert "A far run" in far.page("/") and "pending" in far.page("/run/group")
        time.sleep(0.1)

    def refuse(self: Engine, runs: Path) -> None:
        raise UserError("no credentials")

    monkeypatch.setattr(FarEngine, "__init__", refuse)
    assert "A far run" in far.page("/")
