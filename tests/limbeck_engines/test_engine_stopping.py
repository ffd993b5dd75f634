"""Engines that are killed, interrupted, cancelled, or not alone."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import engine_graphs
import psutil
import pytest
from engine_graphs import BUILD, fetch, make_engine, make_task, states

from limbeck_engines.processes import kill_orphans
from pipeline.common.errors import UserError

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts an engine in a process of its own; none outlives the test."""
    processes = []

    def start_engine(runs: Path, group: str, action: str = "run") -> "subprocess.Popen[str]":
        command = [sys.executable, engine_graphs.__file__, str(runs), group, action]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        return processes[-1]

    yield start_engine
    for process in processes:
        process.terminate()  # unlike a kill, this ends what its tasks have started too
    for process in processes:
        process.communicate()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def alive(pid_file: Path) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(int(pid_file.read_text())).status() != psutil.STATUS_ZOMBIE
    return False


def kill(engine: "subprocess.Popen[str]", guardian: bool = False) -> None:
    """Kill an engine, and before it, if asked, what would kill its tasks then."""
    if guardian:
        [found] = [
            child for child in psutil.Process(engine.pid).children() if "guardian.py" in " ".join(child.cmdline())
        ]
        found.kill()
    engine.kill()
    engine.wait()


def slow(tmp_path: Path, label: str = "slow", seconds: int = 30, **options: object) -> engine_graphs.Task:
    """A task that notes its process and that of a child, writes half an artifact, and is quick once `go` exists."""
    pids = tmp_path / label
    script = (
        f"echo half > artifacts/out; echo $RUN_ID >> {pids}.runs; sleep {seconds} & echo $! > {pids}.child; "
        f"echo $$ > {pids}.pid; i=0; while test ! -e {tmp_path}/go && test $i -lt {seconds * 20}; "
        "do sleep 0.05; i=$((i+1)); done; echo whole >> artifacts/out"
    )
    return make_task(label, script, **options)  # type: ignore[arg-type]


def test_kill_9_and_resume(tmp_path: Path, start: Start) -> None:
    runs = tmp_path / "runs"
    engine = make_engine(runs)
    first = make_task("first", f"echo x >> {tmp_path}/count; echo one > artifacts/one")
    second = slow(tmp_path, after=(first,), fetches=[fetch(first, "one")])
    engine.submit("g", "killed", [first, second], "")
    process = start(runs, "g")
    wait_for((tmp_path / "slow.pid").exists, "the second task")
    assert alive(tmp_path / "slow.pid") and alive(tmp_path / "slow.child")

    kill(process)

    for name in ("slow.pid", "slow.child"):
        wait_for(lambda name=name: not alive(tmp_path / name), "the task to die with its engine")
    assert engine.status("g").group.state == "interrupted"
    assert states(engine, "g") == {"first": "completed", "slow": "pending"}
    assert not (runs / "task/slow/runs/0/artifacts").exists()

    (tmp_path / "go").touch()
    assert engine.resume("g").succeeded

    assert (tmp_path / "count").read_text() == "x\n", "what was finished has not run again"
    assert (tmp_path / "slow.runs").read_text().split() == ["0", "1"]
    assert engine.artifact_path("slow", f"{BUILD}/out").read_text() == "half\nwhole\n"


def test_an_orphan_is_dead_before_its_task_runs_again_in_another_group(tmp_path: Path, start: Start) -> None:
    runs = tmp_path / "runs"
    engine = make_engine(runs)
    engine.submit("g1", "killed", [slow(tmp_path)], "")
    process = start(runs, "g1")
    wait_for((tmp_path / "slow.pid").exists, "the task")
    orphan = tmp_path / "orphan"
    orphan.write_text((tmp_path / "slow.child").read_text())
    kill(process, guardian=True)
    assert alive(orphan)
    (tmp_path / "go").touch()

    engine.submit("g2", "next", [slow(tmp_path, task_id="other")], "")
    assert engine.run("g2").succeeded
    assert not alive(orphan)
    assert engine.status("g1").group.state == "interrupted"


def test_a_crash_between_the_rename_and_the_record_loses_nothing(tmp_path: Path) -> None:
    engine = make_engine(tmp_path / "runs")
    task = make_task("task", f"echo x >> {tmp_path}/count; echo one > artifacts/one")
    engine.submit("g", "crash", [task], "")
    engine.run("g")
    engine.store.update_task("task", state="running", run=None, finished=None, pid=None)
    engine.store.update_group("g", state="running")

    assert engine.resume("g").counts == {"completed": 1}
    assert (tmp_path / "count").read_text() == "x\n"
    assert engine.store.lookup(task.digest) == "task"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_engine_stops_its_tasks_and_can_be_resumed(
    tmp_path: Path, start: Start, number: signal.Signals
) -> None:
    runs = tmp_path / "runs"
    engine = make_engine(runs)
    engine.submit("g", "interrupted", [slow(tmp_path), make_task("quick")], "")
    process = start(runs, "g")
    wait_for((tmp_path / "slow.pid").exists, "the task")
    wait_for(lambda: states(engine, "g")["quick"] == "completed", "the quick task")

    process.send_signal(number)
    output = process.communicate(timeout=10)[0]

    assert process.returncode == 3
    assert "go on with: limbeck resume g" in output
    # A process that was killed may need a moment to end on a busy machine.
    for name in ("slow.pid", "slow.child"):
        wait_for(lambda name=name: not alive(tmp_path / name), "a killed process to end")
    assert states(engine, "g") == {"slow": "pending", "quick": "completed"}
    row = engine.store.task("slow")
    assert row.reason == "interrupted" and row.pid is None
    assert engine.status("g").group.state == "interrupted"
    (tmp_path / "go").touch()
    assert engine.resume("g").succeeded


def test_a_second_interrupt_kills_at_once(tmp_path: Path, start: Start) -> None:
    runs = tmp_path / "runs"
    engine = make_engine(runs)
    script = f"trap '' TERM; echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; " + "sleep 0.1; " * 600
    engine.submit("g", "stubborn", [make_task("stubborn", script)], "")
    process = start(runs, "g")
    wait_for((tmp_path / "pid").exists, "the task")
    started = time.monotonic()

    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert alive(tmp_path / "pid")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)

    assert time.monotonic() - started < engine_graphs.FAST.grace
    assert not alive(tmp_path / "pid")


def test_cancel_from_another_process(tmp_path: Path, start: Start) -> None:
    runs = tmp_path / "runs"
    engine = make_engine(runs)
    first = slow(tmp_path)
    engine.submit("g", "cancelled", [make_task("quick"), first, make_task("later", after=(first,))], "")
    process = start(runs, "g")
    wait_for((tmp_path / "slow.pid").exists, "the task")
    wait_for(lambda: states(engine, "g")["quick"] == "completed", "the quick task")

    engine.cancel("g")

    # A process that was killed may need a moment to end on a busy machine.
    for name in ("slow.pid", "slow.child"):
        wait_for(lambda name=name: not alive(tmp_path / name), "a killed process to end")
    assert states(engine, "g") == {"quick": "completed", "slow": "cancelled", "later": "cancelled"}
    assert process.wait(timeout=10) == 3
    assert engine.status("g").group.state == "cancelled"
    (tmp_path / "go").touch()
    assert engine.resume("g").counts == {"completed": 3}


def test_cancel_when_nobody_runs_it(tmp_path: Path, start: Start) -> None:
    runs = tmp_path / "runs"
    engine = make_engine(runs)
    engine.submit("g", "dead", [slow(tmp_path)], "")
    process = start(runs, "g")
    wait_for((tmp_path / "slow.pid").exists, "the task")
    kill(process, guardian=True)

    engine.cancel("g")

    assert states(engine, "g") == {"slow": "cancelled"}
    wait_for(lambda: not alive(tmp_path / "slow.child"), "a killed process to end")


def test_one_group_is_run_by_one_engine(tmp_path: Path, start: Start) -> None:
    runs = tmp_path / "runs"
    engine = make_engine(runs)
    engine.submit("g", "taken", [slow(tmp_path)], "")
    process = start(runs, "g")
    wait_for((tmp_path / "slow.pid").exists, "the task")

    with pytest.raises(UserError, match=f"already running, in process {process.pid}"):
        engine.run("g")
    assert engine.status("g").group.state == "running"
    assert alive(tmp_path / "slow.pid")


def test_two_engines_at_once_run_each_digest_once(tmp_path: Path, start: Start) -> None:
    runs = tmp_path / "runs"
    engine = make_engine(runs)
    for group in ("g1", "g2"):
        tasks, previous = [], ()
        for number in range(6):
            script = f"echo {number} >> {tmp_path}/count; sleep 0.1; echo $TASK_ID > artifacts/out"
            tasks.append(make_task(f"t{number}", script, after=previous, task_id=f"t{number}-{group}"))
            previous = (tasks[-1],) if number % 2 else ()
        engine.submit(group, group, tasks, "")

    processes = [start(runs, group) for group in ("g1", "g2")]
    outputs = [process.communicate(timeout=30)[0] for process in processes]

    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sorted((tmp_path / "count").read_text().split()) == [str(number) for number in range(6)]
    for number in range(6):
        made = {engine.artifact_path(f"t{number}-{group}", f"{BUILD}/out").read_text() for group in ("g1", "g2")}
        assert len(made) == 1
    counts = [engine.status(group).counts for group in ("g1", "g2")]
    assert sum(count.get("completed", 0) for count in counts) == sum(count.get("reused", 0) for count in counts) == 6


def test_a_digest_that_fails_elsewhere_is_run_here(tmp_path: Path, start: Start) -> None:
    runs = tmp_path / "runs"
    engine = make_engine(runs)
    script = f"echo $TASK_ID >> {tmp_path}/count; sleep 0.5; test $TASK_ID = there"
    for name in ("here", "there"):
        engine.submit(name, name, [make_task("task", script, task_id=name)], "")
    process = start(runs, "here")
    wait_for((tmp_path / "count").exists, "the other engine's task")

    assert engine.run("there").succeeded
    assert process.wait(timeout=10) == 3
    assert (tmp_path / "count").read_text().split() == ["here", "there"]


def test_an_engine_that_waits_takes_over_from_one_that_dies(tmp_path: Path, start: Start) -> None:
    runs = tmp_path / "runs"
    engine = make_engine(runs)
    for name in ("dies", "waits"):
        engine.submit(name, name, [slow(tmp_path, task_id=name)], "")
    dying = start(runs, "dies")
    wait_for((tmp_path / "slow.pid").exists, "the task")
    waiting = start(runs, "waits")
    wait_for(lambda: engine.status("waits").group.state == "running", "the second engine")
    time.sleep(0.2)
    assert states(engine, "waits") == {"slow": "pending"}
    orphan = tmp_path / "orphan"
    orphan.write_text((tmp_path / "slow.child").read_text())

    kill(dying, guardian=True)
    (tmp_path / "go").touch()

    assert waiting.wait(timeout=10) == 0
    assert not alive(orphan)
    assert states(engine, "waits") == {"slow": "completed"}
    assert engine.status("dies").group.state == "interrupted"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_an_orphan_that_lets_go_of_its_lock_is_killed_all_the_same(tmp_path: Path, start: Start) -> None:
    """Its engine dies while another one is about to run the same digest."""
    runs = tmp_path / "runs"
    engine = make_engine(runs)
    child = "import subprocess; print(subprocess.Popen(['sleep', '30']).pid)"  # Python's children close descriptors
    script = (
        f"if test $TASK_ID = dies; then echo $$ > {tmp_path}/leader; "
        f'python3 -c "{child}" > {tmp_path}/new && mv {tmp_path}/new {tmp_path}/child; '
        f"exec sleep 30; else ! grep -q 'State:.[RS]' /proc/$(cat {tmp_path}/child)/status; fi"
    )
    first = make_task("first", f"while test ! -e {tmp_path}/go; do sleep 0.02; done")
    engine.submit("g1", "dies", [make_task("task", script, task_id="dies")], "")
    engine.submit("g2", "goes on", [first, make_task("task", script, task_id="goes-on", after=(first,))], "")
    other = start(runs, "g2")
    wait_for(lambda: states(engine, "g2")["first"] == "running", "the second engine")
    dying = start(runs, "g1")
    wait_for((tmp_path / "child").exists, "the task")

    kill(dying, guardian=True)
    os.kill(int((tmp_path / "leader").read_text()), signal.SIGKILL)
    assert alive(tmp_path / "child")
    (tmp_path / "go").touch()

    assert other.wait(timeout=10) == 0


def test_a_recycled_process_number_is_left_alone(tmp_path: Path) -> None:
    """The record names a process that is somebody else's by now."""
    engine = make_engine(tmp_path)
    engine.submit("g", "recycled", [make_task("task")], "")
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        created = psutil.Process(stranger.pid).create_time()
        engine.store.update_task("task", state="running", pid=stranger.pid, pid_started=created - 1000)
        engine.store.update_group("g", state="running")
        assert engine.run("g").succeeded
        assert stranger.poll() is None
        os.kill(stranger.pid, signal.SIGKILL)


def test_an_orphan_without_its_environment_is_known_by_its_time_of_birth() -> None:
    with subprocess.Popen(["sleep", "30"], start_new_session=True, env={}) as orphan:
        created = psutil.Process(orphan.pid).create_time()
        assert kill_orphans([(orphan.pid, created - 1000, "task")]) == 0
        assert kill_orphans([(orphan.pid, created, "task")]) == 1
    assert orphan.returncode == -signal.SIGKILL
