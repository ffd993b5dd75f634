"""The pages of runs and tasks, as a program reads them."""

import gzip
import threading
import time
from pathlib import Path

import psutil
import pytest
from engine_graphs import make_engine, make_task
from serve_site import Site, serve_site

from limbeck_engines.local import LocalEngine
from limbeck_engines.task import Task

HOSTILE = "<img src=x onerror=alert(1)>"


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
    return found


def test_the_list_of_runs_tells_what_failed(site: Site) -> None:
    text = site.page("/")
    assert text.index("Broken") < text.index("A finished run"), "the newest is first"
    assert "2 of 2" in text and "1 of 5" in text
    assert '<a href="/task/fails">fails</a> failed' in text


@pytest.mark.parametrize("path", ["/", "/live", "/run/broken", "/run/broken/live", "/task/fails", "/task/fails/live"])
def test_what_tasks_say_is_text(site: Site, path: str) -> None:
    text = site.page(path)
    assert "onerror=alert(1)" in text
    assert HOSTILE not in text


def test_hostile_labels_and_configs_are_text(tmp_path: Path) -> None:
    engine = make_engine(tmp_path / "runs")
    label = '"><script>alert(1)</script>'
    tasks = [make_task(label, task_id="first")]
    tasks += [make_task(f"{label}{number}", task_id=f"t{number}", after=(tasks[0],)) for number in range(12)]
    engine.submit("group", label, tasks, "</pre><script>alert(1)</script>")
    with serve_site(tmp_path / "runs") as site:
        for path in ("/", "/run/group", "/run/group/live", "/task/first", "/task/t3"):
            text = site.page(path)
            assert "<script>alert" not in text, path
        assert "&lt;script&gt;alert(1)" in site.page("/run/group")


def test_a_folder_where_nothing_has_run_stays_empty(tmp_path: Path) -> None:
    with serve_site(tmp_path / "runs") as site:
        assert "Nothing has run here yet" in site.page("/")
        assert "No training" in site.page("/curves")
        assert "Nothing has run" in site.page("/compare")
        assert site.get("/run/nothing").status_code == 404
        assert not (tmp_path / "runs").exists()
        engine = make_engine(tmp_path / "runs")
        engine.submit("group", "The first run", [make_task("one")], "")
        assert "The first run" in site.page("/")


def test_states_as_they_change(tmp_path: Path) -> None:
    engine = make_engine(tmp_path / "runs")
    gate = tmp_path / "gate"
    waits = make_task("waits", f"echo at work; until [ -e {gate} ]; do sleep 0.05; done")
    engine.submit("group", "A run", [waits, make_task("later", after=(waits,))], "")
    with serve_site(tmp_path / "runs") as site:
        states = lambda: site.json("/run/group/live")["tasks"]  # noqa: E731
        assert states() == {"waits": "pending", "later": "pending"}
        # An engine belongs to its thread.
        thread = threading.Thread(target=lambda: make_engine(tmp_path / "runs").run("group"))
        thread.start()
        try:
            wait_for(lambda: states()["waits"] == "running")
            wait_for(lambda: "at work" in site.json("/run/group/live")["html"]["running"])
            log = wait_for(lambda: (found := site.json("/task/waits/log"))["lines"][2:] and found)
            assert log["lines"][-1] == ["at work", ""] and not log["ended"]
            used = wait_for(lambda: site.json("/task/waits/resources")["figures"])
            assert {figure["key"] for figure in used} >= {"cpus", "memory"}
            assert max(used[1]["data"][0]["y"]) * 1e9 < psutil.virtual_memory().total
        finally:
            gate.touch()
            thread.join(30)
        assert states() == {"waits": "completed", "later": "completed"}
        assert site.json(f"/task/waits/log?offset={log['end']}")["ended"]


def test_nothing_is_sent_twice(site: Site) -> None:
    first = site.get("/run/done/live")
    again = site.get("/run/done/live", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_what_an_earlier_run_made_is_marked_reused(site: Site) -> None:
    assert site.json("/run/broken/live")["tasks"]["made"] == "reused"
    assert "1 more of earlier runs are reused" in site.page("/run/broken")


def test_a_run_whose_engine_died_is_interrupted(tmp_path: Path) -> None:
    engine = make_engine(tmp_path / "runs")
    engine.submit("group", "A run", [make_task("one")], "")
    engine.store.update_group("group", state="running")
    engine.store.update_task("one", state="running", run=0, started=1.0)
    with serve_site(tmp_path / "runs") as site:
        text = site.page("/run/group")
        assert "interrupted" in text and 'data-state="running"' not in text


def test_a_task(site: Site) -> None:
    text = site.page("/task/read")
    assert '<a class="title" href="/task/made">made</a>' in text and "corpus.en.zst" in text
    text = site.page("/task/made")
    assert '<a href="/task/read">read</a>' in text
    assert "It makes none" not in text and "model.bin" in text and "10.2 kB" in text


def test_the_first_lines_of_text(site: Site) -> None:
    text = " ".join(site.page("/task/made").split())
    assert "corpus.en.zst · corpus.de.zst" in text, "both sides beside each other"
    row = '<td dir="auto">a &lt;b&gt;bold&lt;/b&gt; word</td><td dir="auto">ein fettes Wort</td>'
    assert row in text
    assert "packed notes" in text
    assert "<h3>model.bin" not in text, "bytes are no text"


def test_why_a_task_failed_and_what_it_held_up(site: Site) -> None:
    assert "&lt;img src=x" in site.page("/task/fails") and "exit code 3" in site.page("/task/fails")
    assert "It needs fails, which failed" in site.page("/task/after-1")
    run = site.page("/run/broken")
    assert "3 tasks skipped because of it" in run
    assert run.index('href="/task/fails"') < run.index('class="graph"'), "at the top"


def test_a_log_is_read_piece_by_piece(site: Site) -> None:
    whole = site.json("/task/made/log")
    texts = [text for text, _ in whole["lines"]]
    assert texts[-2:-1] == ["30%"], "a progress bar's end"
    assert whole["ended"] and whole["start"] == 0
    assert whole["lines"][0][1] == "engine"
    assert site.json(f"/task/made/log?offset={whole['end']}")["lines"] == []
    raw = site.get("/task/made/log.txt")
    assert raw.headers["Content-Type"].startswith("text/plain") and HOSTILE in raw.text
    assert site.json("/task/fails/log")["lines"][-2] == [f"error: {HOSTILE}", "wrong"]
    assert site.get("/task/made/log?offset=-1").status_code == 400


def test_a_task_that_has_not_started_has_no_log(tmp_path: Path) -> None:
    engine = make_engine(tmp_path / "runs")
    engine.submit("group", "A run", [make_task("one")], "")
    with serve_site(tmp_path / "runs") as site:
        assert site.json("/task/one/log")["lines"] == []
        assert site.get("/task/one/log.txt").status_code == 404
        assert "Artifacts" in site.page("/task/one")


def test_unknown_runs_and_tasks(site: Site) -> None:
    for path in ("/run/none", "/task/none", "/run/none/live", "/task/none/log", "/run/none/scores", "/nothing"):
        answer = site.get(path)
        assert answer.status_code == 404, path
        assert "Traceback" not in answer.text


def test_a_large_run_is_sent_whole(tmp_path: Path) -> None:
    engine = make_engine(tmp_path / "runs")
    first = make_task("first")
    chunks = []
    for number in range(900):
        task = make_task(f"chunk-{number}", after=(first,))
        definition = {**task.definition, "tags": {"kind": "translate"}}
        chunks.append(Task(task.task_id, task.label, definition, task.dependencies, task.digest))
    engine.submit("group", "A large run", [first, *chunks], "")
    with serve_site(tmp_path / "runs") as site:
        text = site.page("/run/group")
        assert text.count('class="cell"') == 900
        assert len(site.json("/run/group/live")["tasks"]) == 901
        # Packed on the way: it is asked for every second.
        packed = site.get("/run/group/live", headers={"Accept-Encoding": "gzip"}, stream=True).raw.read()
        assert len(packed) < 10_000 and len(gzip.decompress(packed)) > 15_000


def test_a_run_that_has_ended_is_read_again_when_it_goes_on(engine: LocalEngine) -> None:
    with serve_site(engine.store.layout.root) as site:
        assert "1 of 5" in site.page("/") and "1 of 5" in site.page("/")
        for row in engine.store.tasks("broken"):
            engine.store.update_task(row.task_id, state="completed", run=0)
        engine.store.update_group("broken", state="completed")
        assert "5 of 5" in site.page("/")


def test_many_runs_are_listed_in_no_time(tmp_path: Path) -> None:
    engine = make_engine(tmp_path / "runs")
    for group in range(120):
        tasks = [make_task(f"task-{number}", task_id=f"g{group}-{number}") for number in range(10)]
        engine.submit(f"group-{group}", f"Run {group}", tasks, "")
        engine.store.update_group(f"group-{group}", state="failed")
        for task in tasks:
            engine.store.update_task(task.task_id, state="skipped")
    with serve_site(tmp_path / "runs") as site:
        assert site.page("/").count('class="title"') == 120
        engine.store.update_task("g0-0", reason="something was written")
        started = time.monotonic()
        site.json("/live")
        assert time.monotonic() - started < 1
