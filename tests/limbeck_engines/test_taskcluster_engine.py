"""Groups on a Taskcluster deployment: what is shown of them, their logs and artifacts, cancelling and going on."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import slugid
from taskcluster_place import EXPIRES, LOG, Place, definition, taskcluster_place
from taskcluster_server import CLIENT, TOKEN
from taskcluster_state import Artifact

from limbeck_engines.display import Display, PlainDisplay
from limbeck_engines.task import Summary
from limbeck_engines.taskcluster import TaskclusterEngine
from limbeck_engines.taskcluster_client import Deployment
from pipeline.common.download import stream
from pipeline.common.errors import TransientError, UserError

CHAIN = {"corpus-a": (), "corpus-b": (), "merge-ab": ("corpus-a", "corpus-b"), "train-ab": ("merge-ab",)}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with taskcluster_place(tmp_path, monkeypatch) as place:
        yield place


def states(place: Place, group: str) -> dict[str, str]:
    return {row.label: row.state for row in place.engine().status(group).tasks if row.label != "train-action"}


def reasons(place: Place, group: str) -> dict[str, str | None]:
    return {row.label: row.reason for row in place.engine().status(group).tasks}


def test_what_a_group_is_shown_as(place: Place) -> None:
    group = place.recorded_group(CHAIN)
    assert states(place, group) == dict.fromkeys(CHAIN, "pending")
    place.do("corpus-a")
    place.state.claim(place.ids["corpus-b"])
    assert states(place, group) == {**dict.fromkeys(CHAIN, "pending"), "corpus-a": "completed", "corpus-b": "running"}
    engine = place.engine()
    assert engine.status(group).group.state == "running"
    row = engine.store.task(place.ids["corpus-a"])
    assert (row.run, row.task().kind, row.digest) == (0, "corpus", b"corpus-a".hex())
    assert row.started and row.finished and row.finished >= row.started
    place.state.lose(place.ids["corpus-b"])
    assert reasons(place, group)["corpus-b"] == "run 2, as its worker was lost"
    for label in ("corpus-b", "merge-ab", "train-ab"):
        place.do(label)
    assert engine.status(group).group.state == "completed"
    # What is done is done: nobody asks again.
    place.server.requests.clear()
    assert engine.status(group).counts == {"completed": 5}
    assert place.server.requests == []


def test_what_waits_for_a_failed_task_names_it(place: Place) -> None:
    group = place.recorded_group(CHAIN)
    # A task of somebody else's in between, as those that gather many.
    place.ids["between"] = slugid.nice()
    place.state.create(place.ids["between"], definition("between", group, (place.ids["corpus-b"],), extra={}))
    place.add_tasks(group, {"late": ("between",), "anyway": ("between",)}, requires="all-completed")
    place.add_tasks(group, {"report": ("train-ab",)}, requires="all-resolved")
    log = b"[taskcluster 2026-01-01T00:00:00.000Z] Executing command 0\nerror: the corpus is empty\n"
    place.do("corpus-b", "failed", log=log + b"[taskcluster 2026-01-01T00:00:01.000Z]    Exit Code: 1\n")
    place.do("corpus-a")
    found = reasons(place, group)
    assert found["corpus-b"] == "the corpus is empty"
    assert {label for label, cause in found.items() if cause == "corpus-b"} == {
        "merge-ab",
        "train-ab",
        "late",
        "anyway",
    }
    assert "between" not in found
    assert states(place, group)["merge-ab"] == "skipped"
    assert states(place, group)["report"] == "pending"
    # Past their deadline they still wait for the same.
    place.state.resolve(place.ids["merge-ab"], "exception", "deadline-exceeded")
    assert states(place, group)["merge-ab"] == "skipped"
    # The log is read once.
    place.server.requests.clear()
    assert reasons(place, group)["corpus-b"] == "the corpus is empty"
    assert not [one for one in place.server.requests if "logs" in one]


@pytest.mark.parametrize(
    ("reason", "state", "said"),
    [
        ("canceled", "cancelled", "cancelled"),
        ("deadline-exceeded", "failed", "its deadline passed"),
        ("malformed-payload", "failed", "its worker does not accept its payload"),
        ("worker-shutdown", "failed", "its worker was taken away"),
    ],
)
def test_exceptions(place: Place, reason: str, state: str, said: str) -> None:
    group = place.recorded_group({"only": ()})
    place.state.claim(place.ids["only"])
    place.state.resolve(place.ids["only"], "exception", reason)
    assert states(place, group) == {"only": state}
    assert reasons(place, group)["only"] == said
    assert place.engine().store.group(group).state == state


def test_an_action_that_fails_is_shown_with_its_log(place: Place) -> None:
    group = place.action()
    place.engine().store.add_group(
        group, "mine", "{}", [], engine="taskcluster", url=f"{place.server.url}/tasks/groups/{group}"
    )
    assert reasons(place, group) == {"train-action": None}
    place.do(group, "failed", log=b"[taskcluster] begins\nerror: input: datasets: missing\n")
    engine = place.engine()
    assert reasons(place, group) == {"train-action": "input: datasets: missing"}
    assert engine.store.group(group).state == "failed"
    assert list(engine.log_lines(group))[-1] == "error: input: datasets: missing\n"


def test_what_a_group_reuses_is_shown_with_it(place: Place) -> None:
    earlier = place.recorded_group({"corpus-a": ()})
    place.do("corpus-a", log=b"")
    place.state.add_artifact(place.ids["corpus-a"], "public/build/corpus", b"text")
    elsewhere = place.folder / "elsewhere"
    elsewhere.mkdir()
    group = place.action()
    place.add_tasks(group, {"merge-ab": ("corpus-a",)})
    labels = {label: place.ids[label] for label in ("corpus-a", "merge-ab")}
    place.state.claim(group)
    place.state.add_artifact(group, "public/label-to-taskid.json", json.dumps(labels).encode())
    place.state.resolve(group)
    place.do("merge-ab")
    # In a record that knows the earlier group, its task stays that group's; in another one it is shown with this one.
    url = f"{place.server.url}/tasks/groups/{group}"
    for runs, expected in ((place.runs, {}), (elsewhere, {"corpus-a": "reused"})):
        engine = TaskclusterEngine(runs, look=0.02)
        engine.store.add_group(group, "mine", "{}", [], engine="taskcluster", url=url)
        if runs == place.runs:
            engine.status(earlier)
        status = engine.status(group)
        shown = {row.label: row.state for row in status.tasks}
        assert shown == {"train-action": "completed", "merge-ab": "completed", **expected}
        assert status.group.state == "completed"
        assert engine.store.run_tasks(group)["corpus-a"].task_id == place.ids["corpus-a"]
    assert list(engine.artifacts(place.ids["corpus-a"])) == ["public/build/corpus"]


def test_an_action_in_the_group_of_its_decision_task(place: Place) -> None:
    decision, action = slugid.nice(), slugid.nice()
    place.state.create(decision, definition("Decision task", decision, extra={}, dependencies=[]))
    place.state.create(action, definition("Action: Train", decision, extra={}, dependencies=[]))
    engine = place.engine()
    engine.store.add_group(
        action, "mine", "{}", [], engine="taskcluster", url=f"{place.server.url}/tasks/groups/{action}"
    )
    assert states(place, action) == {}  # a group is there from its first task on
    place.state.claim(action)
    place.add_tasks(action, {"only": ()})
    assert states(place, action) == {"only": "pending"}
    engine.cancel(action)
    assert {row.label: row.state for row in engine.status(action).tasks} == {
        "train-action": "cancelled",
        "only": "cancelled",
    }
    assert place.state.statuses[decision]["state"] == "pending"


def test_ten_thousand_tasks(place: Place) -> None:
    group = place.recorded_group({"first": ()})
    first = place.ids["first"]
    for number in range(10_000):
        place.state.create(slugid.nice(), definition(f"chunk-{number}", group, (first,)))
    began = time.monotonic()
    engine = place.engine()
    status = engine.status(group)
    assert (len(status.tasks), status.counts["pending"]) == (10_002, 10_001)
    assert len([one for one in place.server.requests if one.endswith("/list")]) == 11  # pages of a thousand
    assert status.tasks[1].label == "first"
    assert time.monotonic() - began < 30


def test_pages_are_read_to_the_end(place: Place) -> None:
    place.server.page = 2
    group = place.recorded_group(CHAIN)
    assert len(place.engine().status(group).tasks) == 5
    place.do("corpus-a", log=b"")
    for number in range(5):
        place.state.add_artifact(place.ids["corpus-a"], f"public/build/file.{number}", b"x" * number)
    assert len(place.engine().artifacts(place.ids["corpus-a"])) == 5


def test_a_deployment_that_is_away_or_has_forgotten(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    group = place.recorded_group({"only": ()})
    engine = place.engine()
    engine.status(group)
    place.server.fail("task-group", status=503, times=100)
    engine._deployments[place.server.url] = Deployment(place.server.url, retries=0)
    assert [row.label for row in engine.status(group).tasks] == ["train-action", "only"]
    assert "is shown as it was last seen" in caplog.text
    place.server.faults.clear()
    for kept in (place.state.tasks, place.state.statuses, place.state.groups):
        kept.clear()
    assert engine.status(group).group.state == "failed"
    assert reasons(place, group)["only"] == "the deployment does not know it any more"
    with pytest.raises(UserError, match="cannot go on, as the deployment does not know it any more"):
        engine.restart(group)


def test_a_log_is_followed_from_one_run_to_the_next(place: Place) -> None:
    group = place.recorded_group({"only": ()})
    task, state = place.ids["only"], place.state
    engine = place.engine()
    engine.status(group)
    with pytest.raises(UserError, match=f"{task} has no log: it is pending"):
        next(engine.log_lines(task))

    def work() -> None:
        state.claim(task)
        state.add_artifact(task, LOG, b"one\ntw")
        time.sleep(0.1)
        with state.lock:
            state.artifacts[task, 0, LOG].content = b"one\ntwo\n"
            state.lose(task)
        state.claim(task)
        state.add_artifact(task, LOG, b"three\n")
        time.sleep(0.05)
        state.resolve(task)

    worker = threading.Thread(target=work)
    worker.start()
    assert list(engine.log_lines(task, follow=True)) == ["one\n", "two\n", "three\n"]
    worker.join()
    assert list(engine.log_lines(task)) == ["three\n"]


def test_a_log_is_shown_while_it_is_written(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limbeck_engines.taskcluster_logs._QUIET", 0.2)
    place.recorded_group({"only": ()})
    place.state.claim(place.ids["only"])
    place.state.add_artifact(place.ids["only"], LOG, b"so far\n")
    assert list(place.engine().log_lines(place.ids["only"])) == ["so far\n"]


def test_a_log_that_cannot_be_reached_is_no_empty_log(place: Place) -> None:
    place.recorded_group({"only": ()})
    place.do("only", log=b"something\n")
    elsewhere = {
        "storageType": "reference",
        "contentType": "text/plain",
        "expires": EXPIRES,
        "url": "http://127.0.0.1:9/",
    }
    place.state.artifacts[place.ids["only"], 0, LOG] = Artifact(elsewhere)
    with pytest.raises(TransientError, match=r"the log of run 0 of .* cannot be read now"):
        list(place.engine().log_lines(place.ids["only"]))


def test_artifacts_have_urls_and_sizes(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.recorded_group({"only": ()})
    task, engine = place.ids["only"], place.engine()
    with pytest.raises(UserError, match=f"{task} has no artifacts: it is pending"):
        engine.artifacts(task)
    place.do("only", log=b"...")
    for name in ("public/build/model.npz", "project/limbeck/private.txt"):
        place.state.add_artifact(task, name, name.encode())
    broken = {"storageType": "error", "reason": "too-large-file-on-worker", "message": "huge", "expires": EXPIRES}
    place.state.artifacts[task, 0, "public/build/huge"] = Artifact(broken)
    found = engine.artifacts(task)
    assert list(found) == ["project/limbeck/private.txt", "public/build/model.npz"]
    assert found["public/build/model.npz"] == (
        f"{place.server.url}/api/queue/v1/task/{task}/runs/0/artifacts/public%2Fbuild%2Fmodel.npz"
    )
    assert "bewit=" in found["project/limbeck/private.txt"]
    assert "could not upload public/build/huge" in caplog.text
    assert engine.artifact_sizes(task)["public/build/model.npz"] == len("public/build/model.npz")
    assert [b"".join(stream(url)).decode() for url in found.values()] == list(found)


def test_cancelling_stops_what_would_go_on(place: Place) -> None:
    group = place.recorded_group(CHAIN)
    place.do("corpus-a")
    place.engine().cancel(group)
    assert states(place, group) == {
        "corpus-a": "completed",
        **dict.fromkeys(("corpus-b", "merge-ab", "train-ab"), "cancelled"),
    }
    asked = [one for one in place.server.requests if one.startswith("POST")]
    assert asked == [f"POST /api/queue/v1/task-group/{group}/{what}" for what in ("seal", "cancel")]


def test_cancelling_while_the_action_still_makes_tasks(place: Place) -> None:
    group = place.action()
    engine = place.engine()
    engine.store.add_group(
        group, "mine", "{}", [], engine="taskcluster", url=f"{place.server.url}/tasks/groups/{group}"
    )
    place.state.claim(group)
    place.add_tasks(group, {"only": ()})
    # The deployment is slow to hear of its own seal.
    place.server.fail(f"task-group/{group}/cancel", status=409)
    engine.cancel(group)
    assert {row.label: row.state for row in engine.status(group).tasks} == {
        "train-action": "cancelled",
        "only": "cancelled",
    }
    assert engine.store.group(group).state == "cancelled"


def test_who_may_not_cancel_is_told_what_is_missing(place: Place) -> None:
    group = place.recorded_group({"only": ()})
    place.server.clients[CLIENT] = (TOKEN, ["hooks:trigger-hook:*"])
    with pytest.raises(UserError, match=r"does not allow cancelling the task group .*: missing the scope queue:seal"):
        place.engine().cancel(group)
    assert states(place, group) == {"only": "pending"}


def test_failed_tasks_run_again_and_what_waits_follows(place: Place) -> None:
    group = place.recorded_group(CHAIN)
    place.do("corpus-a")
    place.do("corpus-b", "failed")
    assert states(place, group)["merge-ab"] == "skipped"
    place.engine().restart(group)
    assert states(place, group) == {"corpus-a": "completed", **dict.fromkeys(list(CHAIN)[1:], "pending")}
    for label in ("corpus-b", "merge-ab", "train-ab"):
        place.do(label)
    assert place.engine().status(group).group.state == "completed"
    assert len(place.state.statuses[place.ids["corpus-b"]]["runs"]) == 2


def test_a_cancelled_group_goes_on_in_order(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """The queue runs again what it is told to, whatever that needs: so nothing is told too early."""
    group = place.recorded_group(CHAIN)
    place.do("corpus-a")
    place.engine().cancel(group)
    engine = place.engine()
    engine.restart(group)
    assert "2 tasks ended before what they need was done" in caplog.text
    assert f"limbeck resume {group} --wait" in caplog.text
    assert states(place, group)["corpus-b"] == "pending"
    assert place.state.statuses[place.ids["merge-ab"]]["state"] == "exception"
    order = []
    stopped = threading.Event()

    def work() -> None:
        while not stopped.wait(0.01):
            with place.state.lock:
                for label, task_id in place.ids.items():
                    if place.state.statuses[task_id]["state"] == "pending":
                        order.append(label)
                        place.do(label)

    worker = threading.Thread(target=work)
    worker.start()
    summary = engine.run(group)
    stopped.set()
    worker.join()
    assert summary.succeeded
    assert order == ["corpus-b", "merge-ab", "train-ab"]


class Told(Display):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def begin(self, name: str, counts: Mapping[str, int]) -> None:
        self.lines.append(f"begin {name}")

    def started(self, label: str, run: int) -> None:
        self.lines.append(f"started {label}")

    def ended(self, label: str, state: str, seconds: float, reason: str | None) -> None:
        self.lines.append(f"{state} {label}" + (f": {reason}" if reason else ""))

    def note(self, message: str) -> None:
        self.lines.append(message)

    def end(self, summary: Summary) -> None:
        self.lines.append(f"end {summary.state}")


def test_a_group_is_watched_until_it_has_ended(place: Place) -> None:
    group = place.recorded_group(CHAIN)

    def work() -> None:
        for label, state in (("corpus-a", "completed"), ("corpus-b", "failed")):
            time.sleep(0.1)
            place.state.claim(place.ids[label])
            time.sleep(0.1)
            place.state.resolve(place.ids[label], state)

    worker = threading.Thread(target=work)
    worker.start()
    told = Told()
    summary = place.engine().run(group, told)
    worker.join()
    assert told.lines[0] == "begin test" and told.lines[-1] == "end failed"
    assert told.lines.index("started corpus-a") < told.lines.index("completed corpus-a")
    assert "skipped train-ab: corpus-b" in told.lines
    assert not summary.succeeded
    assert (summary.failed, dict(summary.skipped)) == (
        [("corpus-b", "failed")],
        {"merge-ab": "corpus-b", "train-ab": "corpus-b"},
    )


def test_whoever_stops_watching_stops_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    group = place.recorded_group({"only": ()})

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    told = Told()
    monkeypatch.setattr(told, "refresh", interrupt)
    assert not place.engine().run(group, told).succeeded
    assert f"no longer watched; the run goes on: limbeck status {group}" in told.lines[-1]
    assert states(place, group) == {"only": "pending"}
    place.do("only")
    assert place.engine().run(group, PlainDisplay()).succeeded
