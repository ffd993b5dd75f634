import json
import time
from pathlib import Path

import pytest
from engine_graphs import BUILD, fetch, make_engine, make_task, states

from limbeck_engines import execution
from limbeck_engines.display import Display
from limbeck_engines.task import Resources, Task
from pipeline.common.errors import UserError


def test_tasks_run_after_what_they_depend_on_and_read_its_artifacts(tmp_path: Path) -> None:
    first = make_task("first", "echo one > artifacts/corpus.en.txt")
    second = make_task(
        "second",
        'cat "$MOZ_FETCHES_DIR/first/1/corpus.en.txt" > artifacts/out; echo two >> artifacts/out',
        after=(first,),
        fetches=[fetch(first, "corpus.en.txt", "first/1")],
    )
    engine = make_engine(tmp_path)
    engine.submit("g", "order", [second, first], "config")

    summary = engine.run("g")

    assert summary.succeeded
    assert summary.counts == {"completed": 2}
    assert engine.artifact_path("second", f"{BUILD}/out").read_text() == "one\ntwo\n"
    assert engine.status("g").group.config == "config"
    run = tmp_path / "task/second/runs/0"
    assert sorted(path.name for path in run.iterdir()) == ["artifacts", "live.log", "manifest.json"]
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["artifacts"][f"{BUILD}/out"]["size"] == 8
    assert manifest["label"] == "second" and manifest["digest"] == second.digest


def test_the_environment_of_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKCLUSTER_ROOT_URL", "https://elsewhere.invalid")
    task = make_task("task", "pwd; env > artifacts/env", resources=Resources(2), env={"OWN": "1"})
    engine = make_engine(tmp_path, cpus=2)
    engine.submit("g", "environment", [task], "")

    engine.run("g")

    lines = engine.artifact_path("task", f"{BUILD}/env").read_text().splitlines()
    env = dict(line.split("=", 1) for line in lines if "=" in line)
    work = str(tmp_path / "task/task/runs/0/work")
    assert env["TASK_WORKDIR"] == work and env["MOZ_FETCHES_DIR"] == f"{work}/fetches"
    assert env["OWN"] == "1" and env["TASK_ID"] == "task" and env["RUN_ID"] == "0"
    assert env["LIMBECK_CPUS"] == env["OMP_NUM_THREADS"] == "2"
    assert env["CUDA_VISIBLE_DEVICES"] == "" and "TASKCLUSTER_ROOT_URL" not in env
    assert env["LIMBECK_CHECKPOINTS"] == str(tmp_path / "checkpoints" / task.digest)
    assert not Path(env["LIMBECK_CHECKPOINTS"]).exists()  # of no more use
    assert work in engine.log_path("task").read_text()


def test_a_task_waits_for_all_that_it_depends_on(tmp_path: Path) -> None:
    makers = [make_task(f"t{number}", f"sleep 0.{number}; echo {number} > artifacts/{number}") for number in range(4)]
    reader = make_task(
        "reader", after=tuple(makers), fetches=[fetch(task, str(number)) for number, task in enumerate(makers)]
    )
    engine = make_engine(tmp_path, cpus=4)
    engine.submit("g", "all", [reader, *makers], "")

    assert engine.run("g").succeeded


def test_more_inputs_than_an_environment_can_hold(tmp_path: Path) -> None:
    maker = make_task("maker", "echo text > artifacts/corpus")
    fetches = [fetch(maker, "corpus", f"{number}-{'x' * 200}") for number in range(500)]
    assert len(str(fetches)) > 1 << 17  # Linux takes 128 KiB for one variable
    reader = make_task("reader", 'ls "$MOZ_FETCHES_DIR" | wc -l', after=(maker,), fetches=fetches)
    engine = make_engine(tmp_path)
    engine.submit("g", "many", [maker, reader], "")

    assert engine.run("g").succeeded
    assert "500\n" in engine.log_path("reader").read_text()


def overlap(folder: Path) -> str:
    """A script that fails when another one of its kind runs at the same time, and notes how many did at most."""
    return (
        f"mkdir -p {folder}; touch {folder}/$TASK_ID; ls {folder} | wc -l > artifacts/together; sleep 0.15; "
        f"rm {folder}/$TASK_ID"
    )


@pytest.mark.parametrize(
    ("resources", "machine", "together"),
    [
        (Resources(1), {"cpus": 2}, 2),
        (Resources("all"), {"cpus": 4}, 1),
        (Resources(3), {"cpus": 4}, 1),
        (Resources(9), {"cpus": 4}, 1),
        (Resources(1, memory=600 << 20), {"cpus": 4}, 1),
        (Resources(1, memory=300 << 20), {"cpus": 4}, 3),
        (Resources(0, gpus=1), {"cpus": 4, "gpus": 2}, 2),
    ],
)
def test_as_many_at_once_as_there_is_room_for(
    tmp_path: Path, resources: Resources, machine: dict[str, int], together: int
) -> None:
    tasks = [make_task(f"t{number}", overlap(tmp_path / "now"), resources=resources) for number in range(4)]
    engine = make_engine(tmp_path / "runs", **machine)
    engine.submit("g", "slots", tasks, "")

    assert engine.run("g").succeeded

    counts = [int(engine.artifact_path(task.task_id, f"{BUILD}/together").read_text()) for task in tasks]
    assert max(counts) == together


def test_two_tasks_never_share_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    script = 'test ! -e "$RUNS/$CUDA_VISIBLE_DEVICES"; touch "$RUNS/$CUDA_VISIBLE_DEVICES"; sleep 0.1'
    monkeypatch.setenv("RUNS", str(tmp_path))
    tasks = [make_task(f"t{number}", script, resources=Resources(1, gpus=1)) for number in range(2)]
    engine = make_engine(tmp_path / "runs", gpus=2)
    engine.submit("g", "gpus", tasks, "")

    assert engine.run("g").succeeded
    assert (tmp_path / "3").exists() and (tmp_path / "5").exists()


def test_a_gpu_that_is_not_there_fails_the_task(tmp_path: Path) -> None:
    task = make_task("train", resources=Resources(1, gpus=1))
    engine = make_engine(tmp_path)
    engine.submit("g", "gpu", [task, make_task("evaluate", after=(task,))], "")

    summary = engine.run("g")

    assert summary.failed == [("train", "needs 1 GPU, and this machine has none")]
    assert summary.skipped == [("evaluate", "train")]


def test_requests_beyond_the_machine_are_noted(tmp_path: Path) -> None:
    notes = []

    class Notes(Display):
        def note(self, message: str) -> None:
            notes.append(message)

    engine = make_engine(tmp_path, cpus=2)
    engine.submit("g", "large", [make_task("large", resources=Resources(16))], "")

    assert engine.run("g", Notes()).succeeded
    assert notes == ["large asks for 16 CPUs, this machine has 2: it runs with what there is"]


def test_the_longest_path_goes_first(tmp_path: Path) -> None:
    order = tmp_path / "order"
    long = [make_task("long-1", f"echo long-1 >> {order}")]
    long.append(make_task("long-2", f"echo long-2 >> {order}", after=(long[0],)))
    short = make_task("short", f"echo short >> {order}")
    engine = make_engine(tmp_path / "runs", cpus=1)
    engine.submit("g", "priority", [short, *long], "")

    engine.run("g")

    assert order.read_text().split() == ["long-1", "short", "long-2"]


@pytest.mark.parametrize(("exit_code", "retry"), [(75, []), (4, [4]), (137, [137])])
def test_a_retry_and_then_success(tmp_path: Path, exit_code: int, retry: list[int]) -> None:
    script = f'touch artifacts/half; echo {{}} > artifacts/run.$RUN_ID; test "$RUN_ID" = 2 || exit {exit_code}'
    engine = make_engine(tmp_path)
    engine.submit("g", "retry", [make_task("flaky", script, onExitStatus={"retry": retry})], "")

    assert engine.run("g").succeeded

    row = engine.store.task("flaky")
    assert (row.run, row.exit_code, row.state) == (2, 0, "completed")
    assert list(engine.artifacts("flaky")) == [f"{BUILD}/half", f"{BUILD}/run.2"]
    runs = tmp_path / "task/flaky/runs"
    assert sorted(path.name for path in runs.iterdir()) == ["0", "1", "2"]
    assert not list(runs.glob("*/work")), "work folders of a completed task are of no more use"


def test_retries_end(tmp_path: Path) -> None:
    engine = make_engine(tmp_path)
    engine.submit("g", "retry", [make_task("down", "echo 'error: the server answers 503'; exit 75")], "")

    summary = engine.run("g")

    assert summary.failed == [("down", "the server answers 503")]
    assert engine.store.task("down").run == 4


def test_max_run_time(tmp_path: Path) -> None:
    stubborn = make_task("stubborn", "trap '' TERM; while true; do sleep 0.1; done", maxRunTime=0.3)
    engine = make_engine(tmp_path)
    engine.submit("g", "time", [stubborn, make_task("slow", "sleep 60", maxRunTime=0.3)], "")
    started = time.monotonic()

    summary = engine.run("g")

    assert summary.failed == [(name, "took longer than its maxRunTime of 0.3 s") for name in ("stubborn", "slow")]
    assert time.monotonic() - started < 5


def test_a_failed_branch_leaves_the_others_running(tmp_path: Path) -> None:
    broken = make_task("broken", "echo working; echo 'error: no such language: xx' >&2; echo bye; exit 1")
    middle = make_task("middle", after=(broken,))
    last = make_task("last", after=(middle,))
    other = make_task("other", "sleep 0.1; echo fine > artifacts/other")
    after_other = make_task("after-other", after=(other,))
    engine = make_engine(tmp_path)
    engine.submit("g", "branches", [broken, middle, last, other, after_other], "")

    summary = engine.run("g")

    assert summary.state == "failed"
    assert summary.failed == [("broken", "no such language: xx")]
    assert summary.skipped == [("middle", "broken"), ("last", "broken")]
    assert summary.counts == {"completed": 2, "failed": 1, "skipped": 2}
    assert (tmp_path / "task/broken/runs/0/work").is_dir(), "kept for inspection"
    assert not (tmp_path / "task/broken/runs/0/artifacts").exists()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo one; echo 'ValueError: two'; exit 2", "ValueError: two (exit code 2)"),
        ("exit 9", "exit code 9, and its log is empty"),
        ("echo 'error: x'; kill -9 $$", "killed by signal 9 (out of memory?)"),
        ("sh -c 'kill -9 $$'; exit $?", "killed by signal 9 (out of memory?)"),
        ("kill -11 $$", "killed by signal 11 (Segmentation fault), and its log is empty"),
    ],
)
def test_the_reason_of_a_failure(tmp_path: Path, script: str, reason: str) -> None:
    engine = make_engine(tmp_path)
    engine.submit("g", "reasons", [make_task("task", script)], "")

    assert engine.run("g").failed == [("task", reason)]


def test_a_program_that_does_not_exist(tmp_path: Path) -> None:
    engine = make_engine(tmp_path)
    engine.submit("g", "program", [make_task("task", command=[["no-such-program"]])], "")

    assert engine.run("g").failed == [("task", "cannot start no-such-program: No such file or directory")]


def test_commands_run_one_after_the_other_until_one_fails(tmp_path: Path) -> None:
    command = [["sh", "-c", "echo 1"], ["sh", "-c", "echo 2; exit 3"], ["sh", "-c", "echo 3"]]
    engine = make_engine(tmp_path)
    engine.submit("g", "commands", [make_task("task", command=command)], "")

    assert engine.run("g").failed == [("task", "2 (exit code 3)")]
    said = [line for line in engine.log_path("task").read_text().splitlines() if not line.startswith("[limbeck]")]
    assert said == ["1", "2"]


def test_a_task_without_commands_only_gathers_others(tmp_path: Path) -> None:
    one = make_task("one")
    gather = make_task("all", after=(one,), command=[], artifacts=[])
    engine = make_engine(tmp_path)
    engine.submit("g", "gather", [one, gather], "")

    assert engine.run("g").succeeded


def test_a_missing_input_fails_the_task_with_one_sentence(tmp_path: Path) -> None:
    first = make_task("first")
    second = make_task("second", after=(first,), fetches=[fetch(first, "corpus.en.zst")])
    engine = make_engine(tmp_path)
    engine.submit("g", "missing", [first, second], "")

    [(label, reason)] = engine.run("g").failed

    path = tmp_path / "task/first/runs/0/artifacts/public/build/corpus.en.zst"
    assert (label, reason) == ("second", f"the input {BUILD}/corpus.en.zst of first is missing: {path} does not exist")


def test_an_output_that_was_not_made_fails_the_task(tmp_path: Path) -> None:
    outputs = [{"type": "file", "path": "report.html", "name": "public/report.html"}]
    engine = make_engine(tmp_path)
    engine.submit("g", "output", [make_task("report", artifacts=outputs)], "")

    [(_, reason)] = engine.run("g").failed
    assert reason == "the task ended well but left no report.html, which it was to make"


def test_what_a_task_leaves_running_is_killed(tmp_path: Path) -> None:
    engine = make_engine(tmp_path)
    engine.submit("g", "leftover", [make_task("task", "sleep 300 & echo $! > artifacts/pid")], "")

    assert engine.run("g").succeeded

    pid = int(engine.artifact_path("task", f"{BUILD}/pid").read_text())
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and not is_gone(pid):
        time.sleep(0.02)
    assert is_gone(pid)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_digest_that_another_group_completed_meanwhile_is_reused(tmp_path: Path) -> None:
    engine = make_engine(tmp_path)
    here = make_task("corpus", "echo $TASK_ID > artifacts/who", task_id="here")
    reader = make_task("reader", 'cp "$MOZ_FETCHES_DIR/who" artifacts/', after=(here,), fetches=[fetch(here, "who")])
    engine.submit("g1", "waits", [here, reader], "")
    engine.submit("g2", "is first", [make_task("corpus", "echo $TASK_ID > artifacts/who", task_id="there")], "")
    engine.run("g2")

    summary = engine.run("g1")

    assert summary.succeeded and summary.counts == {"reused": 1, "completed": 1}
    assert engine.artifact_path("reader", f"{BUILD}/who").read_text() == "there\n"
    assert engine.artifact_path("here", f"{BUILD}/who").read_text() == "there\n"
    assert engine.log_path("here") == engine.log_path("there")


def test_a_digest_completed_before_the_group_was_submitted_runs_again(tmp_path: Path) -> None:
    """Whoever wants it reused leaves it out of the graph; submitting it means to run it."""
    engine = make_engine(tmp_path)
    for group in ("g1", "g2"):
        engine.submit(group, group, [make_task("corpus", task_id=f"corpus-{group}")], "")
        assert engine.run(group).counts == {"completed": 1}


def test_artifacts_of_an_earlier_group_are_inputs(tmp_path: Path) -> None:
    engine = make_engine(tmp_path)
    corpus = make_task("corpus", "echo text > artifacts/corpus")
    engine.submit("g1", "first", [corpus], "")
    engine.run("g1")
    reader = make_task("reader", 'cat "$MOZ_FETCHES_DIR/corpus"', after=(corpus,), fetches=[fetch(corpus, "corpus")])
    engine.submit("g2", "second", [reader], "")

    assert engine.run("g2").succeeded


def test_resume_runs_what_failed_and_was_skipped_and_nothing_else(tmp_path: Path) -> None:
    switch, count = tmp_path / "switch", tmp_path / "count"
    first = make_task("first", f"echo first >> {count}")
    second = make_task("second", f"echo second >> {count}; test -e {switch}", after=(first,))
    third = make_task("third", f"echo third >> {count}", after=(second,))
    engine = make_engine(tmp_path / "runs")
    engine.submit("g", "resume", [first, second, third], "")
    assert states(engine, "g") == dict.fromkeys(["first", "second", "third"], "pending")
    assert engine.run("g").state == "failed"
    switch.touch()

    summary = engine.resume("g")

    assert summary.succeeded and summary.counts == {"completed": 3}
    assert count.read_text().split() == ["first", "second", "second", "third"]
    assert engine.store.task("second").run == 1


def test_resume_makes_lost_artifacts_again(tmp_path: Path) -> None:
    switch = tmp_path / "switch"
    first = make_task("first", "echo text > artifacts/corpus")
    second = make_task("second", f"test -e {switch}", after=(first,), fetches=[fetch(first, "corpus")])
    engine = make_engine(tmp_path / "runs")
    engine.submit("g", "lost", [first, second], "")
    engine.run("g")
    engine.artifact_path("first", f"{BUILD}/corpus").unlink()
    switch.touch()

    assert engine.resume("g").succeeded
    assert engine.store.task("first").run == 1


def test_checkpoints_outlive_a_failed_run(tmp_path: Path) -> None:
    script = 'cat "$LIMBECK_CHECKPOINTS/step" && exit 0; echo 17 > "$LIMBECK_CHECKPOINTS/step"; exit 1'
    engine = make_engine(tmp_path)
    engine.submit("g", "checkpoints", [make_task("train", script)], "")
    assert not engine.run("g").succeeded

    assert engine.resume("g").succeeded
    assert "17\n" in engine.log_path("train").read_text()


def test_a_full_disk_stops_the_engine_and_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_task("first", "echo one > artifacts/one")
    second = make_task("second", "echo two > artifacts/two", after=(first,))
    engine = make_engine(tmp_path)
    engine.submit("g", "full", [first, second], "")
    real, full = execution.Attempt.run, True

    async def run(self: execution.Attempt, *arguments: object) -> object:
        if self.task.label == "second" and full:
            with Path("/dev/full").open("w") as file:
                file.write("x")  # raises ENOSPC
        return await real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(execution.Attempt, "run", run)
    with pytest.raises(UserError, match=r"the disk of .* is full: free some space.*limbeck resume g"):
        engine.run("g")
    assert states(engine, "g") == {"first": "completed", "second": "pending"}

    full = False
    assert engine.resume("g").counts == {"completed": 2}
    assert engine.store.task("first").run == 0


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([make_task("a"), make_task("a", task_id="b")], "2 tasks of group g have the label a"),
        ([make_task("a", after=(make_task("gone"),))], "a depends on the task gone, which was never submitted"),
        ([make_task("a", command=["true"])], "must be a list of commands"),
        ([make_task("a", digest="../../x")], "its digest is '../../x'"),
        ([make_task("a", task_id="../a")], "cannot be the id of a task"),
        ([make_task("a", env={"MOZ_FETCHES": "[{}]"})], "MOZ_FETCHES must be"),
        ([make_task("a", artifacts=[{"type": "file", "path": "../x", "name": "x"}])], "an artifact needs"),
        (
            [make_task("a", after=(make_task("b"),)), make_task("b", after=(make_task("a"),))],
            "in a circle, among them a, b",
        ),
    ],
)
def test_a_graph_that_cannot_run_is_refused_as_a_whole(tmp_path: Path, tasks: list[Task], message: str) -> None:
    engine = make_engine(tmp_path)
    with pytest.raises(UserError, match=message):
        engine.submit("g", "bad", tasks, "")
    assert engine.store.groups() == []


def test_questions_about_what_is_not_there(tmp_path: Path) -> None:
    engine = make_engine(tmp_path)
    engine.submit("g", "questions", [make_task("task", "echo x > artifacts/x")], "")

    with pytest.raises(UserError, match="there is no group h"):
        engine.status("h")
    with pytest.raises(UserError, match="there is no task nobody"):
        engine.log_path("nobody")
    with pytest.raises(UserError, match="it has not started yet"):
        engine.log_path("task")
    with pytest.raises(UserError, match="has no artifacts: it is pending"):
        engine.artifact_path("task", "x")
    engine.run("g")
    with pytest.raises(UserError, match=f"has no artifact y; it has: {BUILD}/x"):
        engine.artifact_path("task", "y")
    with pytest.raises(UserError, match="submitted before"):
        engine.submit("g", "again", [], "")


def test_inputs_are_links_and_read_only(tmp_path: Path) -> None:
    first = make_task("first", "mkdir artifacts/model; echo w > artifacts/model/weights")
    script = 'stat -c "%h %a" "$MOZ_FETCHES_DIR/teacher/model/weights"'
    second = make_task("second", script, after=(first,), fetches=[fetch(first, "model/", "teacher")])
    engine = make_engine(tmp_path)
    engine.submit("g", "links", [first, second], "")

    assert engine.run("g").succeeded

    assert "2 444\n" in engine.log_path("second").read_text()
    assert engine.artifact_path("first", f"{BUILD}/model/weights").stat().st_nlink == 1


def test_a_task_that_asks_learns_of_the_run_that_it_is_of(tmp_path: Path) -> None:
    engine = make_engine(tmp_path)
    first = make_task("first", "sleep 0.2; echo one > artifacts/out")
    engine.submit("g1", "earlier", [first], "")
    assert engine.run("g1").succeeded
    report = make_task("report", 'cp "$LIMBECK_DURATIONS" artifacts/out; cp "$LIMBECK_CONFIG" artifacts/', (first,))
    engine.submit("g2", "later", [report], "experiment: {}\n")
    assert engine.run("g2").succeeded
    durations = json.loads(engine.artifact_path("report", f"{BUILD}/out").read_text())
    assert list(durations) == ["first"]
    assert durations["first"] > 0.2
    assert engine.artifact_path("report", f"{BUILD}/training-config.yml").read_text() == "experiment: {}\n"
