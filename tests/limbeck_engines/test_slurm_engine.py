"""The engine on a real Slurm, which these tests start on loopback."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slurm_cluster
from engine_graphs import fetch, make_engine, make_task
from slurm_cluster import SlurmCluster
from slurm_site import PROFILE, TRAINING, Site

from limbeck_engines.display import PlainDisplay
from limbeck_engines.slurm import SlurmEngine
from limbeck_engines.slurm_files import State
from limbeck_engines.task import CANCELLED, COMPLETED, FAILED, INTERRUPTED, PENDING, RUNNING, SKIPPED, Resources
from pipeline.common.errors import UserError

pytestmark = pytest.mark.skipif(slurm_cluster.missing() is not None, reason=slurm_cluster.missing() or "")


def test_a_graph_runs_and_its_work_is_found_again(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    engine = site.engine
    corpus = make_task("corpus", "echo one > artifacts/text; echo hello")
    script = "cat $MOZ_FETCHES_DIR/text > artifacts/{0}; echo {0} >> artifacts/{0}"
    chunks = [make_task(f"chunk-{n}", script.format(n), (corpus,), [fetch(corpus, "text")]) for n in range(3)]
    parts = [fetch(chunk, str(number)) for number, chunk in enumerate(chunks)]
    merge = make_task("merge", "cat $MOZ_FETCHES_DIR/* > artifacts/all", tuple(chunks), parts)
    engine.submit(site.group, "graph", [corpus, *chunks, merge], "")
    assert engine.run(site.group, PlainDisplay()).succeeded
    assert engine.artifacts("merge")["public/build/all"].read_text() == "one\n0\none\n1\none\n2\n"
    assert "hello\n" in site.log("corpus")
    assert "started    merge" in (said := capsys.readouterr().out) and "done       merge" in said
    # The chunks were one array, and the record has what a local run's has.
    jobs = {row.label: row.job or "" for row in engine.status(site.group).tasks}
    assert [jobs[f"chunk-{n}"] for n in range(3)] == [f"{jobs['chunk-0'].partition('_')[0]}_{n}" for n in range(3)]
    assert engine.store.lookup(merge.digest) == "merge"
    row = engine.store.task("merge")
    assert (row.run, row.exit_code) == (0, 0) and row.started and row.finished
    # A local run reads what Slurm made, and the other way round.
    local = make_engine(engine.store.layout.root)
    reader = make_task("reader", "cp $MOZ_FETCHES_DIR/all artifacts", (merge,), [fetch(merge, "all")])
    local.submit("l", "local", [reader], "")
    assert local.run("l").succeeded
    after = make_task("after", "cp $MOZ_FETCHES_DIR/all artifacts", (reader,), [fetch(reader, "all")])
    engine.submit(f"{site.group}-h", "mixed", [after], "")
    assert engine.run(f"{site.group}-h").succeeded


def test_a_failure_skips_what_needs_it_and_nothing_else(site: Site) -> None:
    bad = make_task("bad", "echo 'error: the corpus is empty'; exit 3")
    middle = make_task("middle", after=(bad,))
    tasks = [bad, middle, make_task("last", after=(middle,)), make_task("other", "touch artifacts/x")]
    site.run(*tasks)
    assert site.states() == {"bad": FAILED, "middle": SKIPPED, "last": SKIPPED, "other": COMPLETED}
    assert (site.row("bad").exit_code, site.row("bad").reason) == (3, "the corpus is empty")
    assert site.row("last").reason == "bad"
    assert site.engine.status(site.group).group.state == FAILED
    # Slurm has cancelled the others by itself.
    site.wait_for(lambda: site.cluster.run("squeue", "--noheader").stdout == "", "an empty queue")


def test_what_failed_or_lost_its_artifacts_runs_again_when_resumed(site: Site) -> None:
    made = make_task("made", "touch artifacts/x")
    flag = site.folder / "flag"
    bad = make_task("bad", f"[ -e {flag} ] && touch artifacts/x && exit 0; exit 3", (made,), [fetch(made, "x")])
    site.run(made, bad, make_task("end", after=(bad,)))
    assert site.states() == {"made": COMPLETED, "bad": FAILED, "end": SKIPPED}
    flag.touch()
    site.engine.artifacts("made")["public/build/x"].unlink()
    site.engine.restart(site.group)
    assert site.engine.run(site.group).succeeded
    assert {row.label: row.run for row in site.engine.status(site.group).tasks} == {"made": 1, "bad": 1, "end": 0}


def test_chunks_start_when_their_own_part_is_done(site: Site) -> None:
    split = make_task("split", "touch artifacts/x")
    script = "[ {0} = 1 ] && exit 4; touch artifacts/{0}"
    chunks = [make_task(f"translate-{n}", script.format(n), (split,)) for n in range(3)]
    scores = [make_task(f"score-{n}", after=(chunk,)) for n, chunk in enumerate(chunks)]
    site.run(split, *chunks, *scores, make_task("all", after=tuple(scores)))
    assert site.states() == {
        "split": COMPLETED,
        "translate-0": COMPLETED,
        "translate-1": FAILED,
        "translate-2": COMPLETED,
        "score-0": COMPLETED,
        "score-1": SKIPPED,
        "score-2": COMPLETED,
        "all": SKIPPED,
    }
    assert (site.row("score-2").job or "").endswith("_2")


def test_the_gpus_are_the_jobs_own(site: Site) -> None:
    one = make_task("one", "echo see $CUDA_VISIBLE_DEVICES; sleep 1", resources=Resources(gpus=1))
    two = make_task("two", "echo see $CUDA_VISIBLE_DEVICES", resources=Resources(gpus=2))
    none = make_task("none", "echo see [$CUDA_VISIBLE_DEVICES] $LIMBECK_CPUS", resources=Resources(cpus=3))
    site.run(one, two, none)
    assert set(site.states().values()) == {COMPLETED}
    assert "see 0,1\n" in site.log("two") and "see [] 3\n" in site.log("none")
    assert "see 0\n" in site.log("one") or "see 1\n" in site.log("one")


def test_a_training_that_is_signalled_goes_on_from_its_checkpoint(site: Site) -> None:
    site.engine.submit(
        site.group, "name", [make_task("train", TRAINING.replace("{updates}", "30")), make_task("spare")], ""
    )
    site.wait_for_log("train", "starts at 0")
    job = site.row("train").job or ""
    time.sleep(0.5)
    site.cluster.run("scancel", "--batch", "--signal=USR1", job)
    site.start_now("train")
    row = site.row("train")
    assert row.state == PENDING and "queued again after run 1" in (row.reason or "")
    site.engine.run(site.group)
    assert site.states()["train"] == COMPLETED
    assert (site.row("train").run, site.row("train").job) == (1, job)
    first, second = (site.engine.store.layout.run("train", n) / "live.log" for n in (0, 1))
    assert "saved" in first.read_text() and "starts at 0" not in second.read_text()
    assert not site.engine.store.layout.checkpoints(make_task("train").digest).exists()


def test_an_exit_code_worth_a_retry_queues_the_job_again(site: Site) -> None:
    script = "[ $RUN_ID = 1 ] && touch artifacts/x && exit 0; echo 'error: the server is busy'; exit 75"
    site.engine.submit(site.group, "name", [make_task("fetch", script)], "")
    site.wait_for_log("fetch", "busy")
    site.start_now("fetch")
    assert "the server is busy" in (site.row("fetch").reason or "")
    assert site.engine.run(site.group).succeeded
    assert site.row("fetch").run == 1


def test_a_job_that_somebody_else_queues_again_has_not_failed(site: Site) -> None:
    """As Slurm does for jobs of higher priority: all processes of the job are told to end at the same time."""
    script = "[ $RUN_ID = 1 ] && touch artifacts/x && exit 0; echo waits; sleep 60"
    task = make_task("task", script)
    site.engine.submit(site.group, "name", [task, make_task("end", after=(task,))], "")
    site.wait_for_log("task", "waits")
    assert site.cluster.run("scontrol", "requeue", site.row("task").job or "").returncode == 0
    site.start_now("task")
    assert site.engine.run(site.group).succeeded
    assert (site.row("task").run, site.row("end").run) == (1, 0)


def test_one_of_an_array_that_is_queued_again_leaves_the_others_alone(site: Site) -> None:
    # The last element that starts has the number of the whole array as its own.
    script = (
        "touch artifacts/x; [ $SLURM_JOB_ID = $SLURM_ARRAY_JOB_ID ] || { sleep 6; exit 0; }; "
        "[ $RUN_ID = 0 ] && { sleep 1; exit 75; }; exit 0"
    )
    site.engine.submit(site.group, "name", [make_task(f"chunk-{n}", script) for n in range(2)], "")

    def again() -> list[str]:
        rows = site.engine.status(site.group).tasks
        return [row.label for row in rows if row.state == PENDING and "queued again" in (row.reason or "")]

    site.wait_for(lambda: bool(again()), "the requeue")
    [label] = again()
    site.start_now(label)
    assert site.engine.run(site.group).succeeded
    assert {row.label: row.run for row in site.engine.status(site.group).tasks} == {
        **{f"chunk-{n}": 0 for n in range(2)},
        label: 1,
    }


def test_a_group_is_cancelled_and_resumed(site: Site) -> None:
    first = make_task("first", "[ -e $LIMBECK_CHECKPOINTS/go ] || sleep 60; touch artifacts/x")
    tasks = [make_task("done", "touch artifacts/x"), first, make_task("second", after=(first,))]
    site.engine.submit(site.group, "name", tasks, "")
    site.wait_for(lambda: site.states() == {"done": COMPLETED, "first": RUNNING, "second": PENDING}, "the start")
    assert site.row("second").reason == "blocked: waits for first"
    site.engine.cancel(site.group)
    assert site.cluster.run("squeue", "--noheader").stdout == ""
    assert site.states() == {"done": COMPLETED, "first": CANCELLED, "second": CANCELLED}
    assert site.engine.status(site.group).group.state == CANCELLED
    finished = site.row("done").finished
    checkpoints = site.engine.store.layout.checkpoints(first.digest)
    checkpoints.mkdir(parents=True, exist_ok=True)  # it may not have come so far
    (checkpoints / "go").touch()
    again = SlurmEngine(site.folder / "runs")  # as `limbeck resume` has it, which is not told of a profile
    again.restart(site.group)
    assert again.run(site.group).succeeded
    assert site.row("done").finished == finished and site.row("first").run == 1


@pytest.mark.slow
def test_the_command_that_submitted_may_be_gone(site: Site) -> None:
    code = (
        "import sys; from pathlib import Path; from engine_graphs import make_task; "
        "from limbeck_engines.slurm import SlurmEngine; "
        "e = SlurmEngine(Path(sys.argv[1]), Path(sys.argv[2])); a = make_task('a', 'sleep 1; touch artifacts/x'); "
        "e.submit(sys.argv[3], 'name', [a, make_task('b', after=(a,))], '')"
    )
    command = [sys.executable, "-c", code, str(site.folder / "runs"), str(site.folder / "profile.yml"), site.group]
    support = str(Path(__file__).parent.parent / "support")
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": support}, start_new_session=True)
    site.wait_for(lambda: set(site.states().values()) == {COMPLETED}, "the end")


def test_a_submission_that_was_killed_half_way_is_completed_by_a_resume(site: Site) -> None:
    code = (
        "import os, sys; from pathlib import Path; from engine_graphs import make_task; "
        "from limbeck_engines.slurm import SlurmEngine; from limbeck_engines.slurm_client import Slurm; "
        "submit = Slurm.submit; Slurm.submit = lambda self, options, *rest: "
        "os._exit(9) if '--job-name=b' in options else submit(self, options, *rest); "
        "e = SlurmEngine(Path(sys.argv[1]), Path(sys.argv[2])); a = make_task('a', 'sleep 2; touch artifacts/x'); "
        "e.submit(sys.argv[3], 'name', [a, make_task('b', after=(a,))], '')"
    )
    command = [sys.executable, "-c", code, str(site.folder / "runs"), str(site.folder / "profile.yml"), site.group]
    support = str(Path(__file__).parent.parent / "support")
    done = subprocess.run(command, check=False, env={**os.environ, "PYTHONPATH": support})
    assert done.returncode == 9
    assert site.row("a").job and site.row("a").state in (PENDING, RUNNING)
    assert (site.row("b").job, site.row("b").state) == (None, PENDING)
    assert f"it has no job; limbeck resume {site.group}" in (site.row("b").reason or "")
    site.engine.restart(site.group)
    assert site.engine.run(site.group).succeeded
    assert (site.row("a").run, site.row("b").run) == (0, 0)


def test_watching_ends_with_ctrl_c_and_the_jobs_go_on(site: Site) -> None:
    said: list[str] = []

    class Listening(PlainDisplay):
        def started(self, label: str, run: int) -> None:
            os.kill(os.getpid(), signal.SIGINT)

        def note(self, message: str) -> None:
            said.append(message)

    site.engine.submit(site.group, "name", [make_task("a", "sleep 2; touch artifacts/x")], "")
    summary = site.engine.run(site.group, Listening())
    assert summary.state == RUNNING and f"limbeck cancel {site.group}" in "".join(said)
    site.wait_for(lambda: site.states() == {"a": COMPLETED}, "the end")


def test_what_slurm_refuses_is_taken_back_as_a_whole(slurm: SlurmCluster, site: Site) -> None:
    site = Site(site.folder, slurm, PROFILE + "workers: {b-gpu: {partition: gpus}}\n")
    first, other = make_task("first", "sleep 5"), make_task("other")
    other.definition["workerType"] = "b-gpu"
    with pytest.raises(UserError, match=r"sbatch: .*invalid partition specified: gpus"):
        site.engine.submit(site.group, "name", [first, other], "")
    assert site.states() == {"first": CANCELLED, "other": CANCELLED}
    assert slurm.run("squeue", "--noheader").stdout == ""


def test_jobs_that_would_be_told_to_stop_at_once_are_refused(slurm: SlurmCluster, site: Site) -> None:
    site = Site(site.folder, slurm, "signal-seconds: 60\ndefaults: {memory: 100MB, partition: short}\n")
    with pytest.raises(UserError, match=r"may run for 1 min 00 s, and are told to stop 1 min 00 s before that"):
        site.engine.submit(site.group, "name", [make_task("train")], "")
    assert site.states() == {"train": CANCELLED}


def test_a_resume_that_slurm_refuses_leaves_alone_what_runs(slurm: SlurmCluster, site: Site) -> None:
    long, bad = make_task("long", "sleep 4; touch artifacts/x"), make_task("bad", "exit 3")
    site.engine.submit(site.group, "name", [long, bad, make_task("end", after=(bad,))], "")
    site.wait_for(lambda: site.states() == {"long": RUNNING, "bad": FAILED, "end": SKIPPED}, "the failure")
    job = site.row("long").job
    (site.folder / "profile.yml").write_text(PROFILE + "workers: {b-cpu: {partition: gone}}\n")
    for task_id in ("bad", "end"):
        definition = json.dumps({**site.row(task_id).definition, "workerType": "b-cpu"})
        site.engine.store.update_task(task_id, definition_json=definition)
    with pytest.raises(UserError, match="invalid partition specified: gone"):
        site.engine.restart(site.group)
    assert site.states() == {"long": RUNNING, "bad": CANCELLED, "end": CANCELLED}
    assert site.engine.status(site.group).group.state == RUNNING
    (site.folder / "profile.yml").write_text(PROFILE)
    site.wait_for(lambda: site.states()["long"] == COMPLETED, "the end")
    assert (site.row("long").job, site.row("long").run) == (job, 0)


@pytest.mark.slow
def test_a_controller_that_lost_the_newest_jobs(site: Site) -> None:
    first = make_task("first", "sleep 1; touch artifacts/x")
    site.engine.submit(site.group, "name", [first], "")
    kept = site.cluster.run("scontrol", "show", "config")  # an answer: the state is written by a thread of its own
    assert kept.returncode == 0
    # As a controller does that dies before it has written its state down.
    site.cluster.kill("slurmctld")
    for name in ("job_state", "job_state.old"):
        (site.cluster.folder / "state" / name).unlink(missing_ok=True)
    site.cluster.start_controller()
    site.wait_for(lambda: site.states()["first"] == PENDING and site.row("first").job is None, "the loss")
    assert "its job is gone" in (site.row("first").reason or "")
    assert site.engine.status(site.group).group.state == INTERRUPTED
    site.wait_for(lambda: "idle" in site.cluster.run("sinfo", "-h").stdout, "the nodes")
    site.engine.restart(site.group)
    assert site.engine.run(site.group).succeeded


def test_the_scratch_folder_is_worked_in_and_cleared(slurm: SlurmCluster, site: Site) -> None:
    scratch = site.folder / "scratch"
    worker = f"{{scratch: {scratch}, setup: [export WHO=me], container: env IN=box}}"
    site = Site(site.folder, slurm, PROFILE + f"workers: {{b-cpu: {worker}}}\n")
    task = make_task("task", "pwd; echo $WHO $IN > artifacts/x")
    task.definition["workerType"] = "b-cpu"
    site.run(task)
    assert site.states() == {"task": COMPLETED}
    assert f"{scratch}/limbeck-task-0\n" in site.log("task")
    assert site.engine.artifacts("task")["public/build/x"].read_text() == "me box\n"
    assert list(scratch.iterdir()) == []


def test_the_same_work_of_two_groups_is_done_once(site: Site) -> None:
    one = make_task("one", "sleep 1; touch artifacts/x", digest="d" * 64)
    site.engine.submit(f"{site.group}-h", "first", [one], "")
    two = make_task("two", "exit 9", digest="d" * 64)
    site.run(two, make_task("reader", "ls $MOZ_FETCHES_DIR/x", (two,), [fetch(two, "x")]))
    assert site.states() == {"two": "reused", "reader": COMPLETED}
    assert site.row("two").reused_from == "one"
    assert State.read(site.engine.store.layout, "two", 0) is not None
