"""What of the Slurm engine needs no Slurm: which jobs tasks become, what they ask for, how squeue is understood."""

import os
import re
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from engine_graphs import make_task

from limbeck_engines.artifacts import Layout
from limbeck_engines.slurm import SlurmEngine
from limbeck_engines.slurm_client import Comment, Slurm, format_time, parse_squeue, parse_time
from limbeck_engines.slurm_files import (
    GroupFile,
    JobSettings,
    Order,
    Run,
    Source,
    State,
    slurm_log,
    write_array,
)
from limbeck_engines.slurm_handover import job_script
from limbeck_engines.slurm_jobs import Dependency, Job, plan_jobs
from limbeck_engines.slurm_launch import nodes_of
from limbeck_engines.slurm_profile import DEFAULT_PROFILE, Profile, Worker, load_profile
from limbeck_engines.slurm_record import reconcile
from limbeck_engines.store import Store
from limbeck_engines.task import Resources, Task
from pipeline.common.errors import UserError


def plan(*tasks: Task, size: int = 1001, **options: Any) -> list[Job]:
    likeness = {task.task_id: task.label.partition("-")[0] for task in tasks}
    return plan_jobs(tasks, likeness, options.get("living", {}), options.get("twins", {}), size)


def described(jobs: list[Job]) -> list[tuple[list[str], tuple[int, ...], list[str]]]:
    ids = {number: f"J{number}" for number in range(len(jobs))}
    return [([t.label for t in job.tasks], job.indexes, [after.text(ids) for after in job.after]) for job in jobs]


def test_tasks_of_a_kind_with_the_same_dependencies_are_an_array() -> None:
    split = make_task("split")
    chunks = [make_task(f"chunk-{n}", after=(split,)) for n in range(3)]
    scores = [make_task(f"score-{n}", after=(split, chunk)) for n, chunk in enumerate(chunks)]
    merge, part = make_task("merge", after=tuple(scores)), make_task("part", after=(scores[0], scores[2]))
    assert described(plan(merge, part, *reversed(scores), *chunks, split)) == [
        (["split"], (), []),
        (["chunk-0", "chunk-1", "chunk-2"], (0, 1, 2), ["afterok:J0"]),
        (["score-0", "score-1", "score-2"], (0, 1, 2), ["aftercorr:J1", "afterok:J0"]),
        (["merge"], (), ["afterok:J2"]),
        (["part"], (), ["afterok:J2_0:J2_2"]),
    ]


def test_dependencies_that_differ_otherwise_keep_tasks_apart() -> None:
    chunks = [make_task(f"chunk-{n}") for n in range(4)]
    best = [make_task(f"best-{n}", after=(chunks[n], chunks[n + 2])) for n in range(2)]
    assert described(plan(*chunks, *best))[1:] == [
        (["best-0"], (), ["afterok:J0_0:J0_2"]),
        (["best-1"], (), ["afterok:J0_1:J0_3"]),
    ]


def test_a_part_of_the_chunks_keeps_their_numbers() -> None:
    chunks = [make_task(f"chunk-{n}") for n in range(4)]
    scores = [make_task(f"score-{n}", after=(chunks[n],)) for n in (3, 1)]
    assert described(plan(*chunks, *scores))[1] == (["score-1", "score-3"], (1, 3), ["aftercorr:J0"])


def test_an_array_is_not_longer_than_slurm_allows() -> None:
    jobs = described(plan(*(make_task(f"chunk-{n}") for n in range(7)), size=3))
    assert [indexes for _, indexes, _ in jobs] == [(0, 1, 2), (0, 1, 2), ()]


def test_tasks_elsewhere_are_waited_for_by_the_names_of_their_jobs() -> None:
    other = make_task("other")
    one = make_task("one", after=(other,))
    twin = make_task("twin")
    jobs = plan(one, twin, living={"other": "17_3", "elder": "9"}, twins={"twin": ["one", "elder"]})
    assert described(jobs) == [
        (["one"], (), ["afterok:17_3"]),
        (["twin"], (), ["afterany:J0", "afterany:9"]),
    ]
    assert Dependency("afterok", "5").text({}) == "afterok:5"


def test_a_task_waits_for_its_twin_even_if_more_follows_it() -> None:
    first, second = (make_task(name, digest="d" * 64) for name in ("first", "second"))
    tasks = [first, second, make_task("reader", after=(second,))]
    twins = {"second": ["first"]}
    plan = plan_jobs(tasks, {task.task_id: "alike" for task in tasks}, {}, twins, 100)
    assert [[task.label for task in job.tasks] for job in plan] == [["first"], ["second"], ["reader"]]
    assert plan[1].after == (Dependency("afterany", 0),)


def test_a_thousand_tasks_are_planned_at_once() -> None:
    chain = [make_task("link-0")]
    for number in range(1, 1000):
        chain.append(make_task(f"link-{number}", after=(chain[-1],)))
    began = time.monotonic()
    assert len(plan(*chain)) == 1000
    assert time.monotonic() - began < 2


# The profile


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_profile_that_comes_along_is_valid() -> None:
    task = make_task("task", resources=Resources(cpus="all", gpus=1, memory=6 * 10**9))
    task.definition["workerType"] = "b-largegpu"
    worker = load_profile(DEFAULT_PROFILE).worker(task)
    assert (worker.gpus, worker.cpus, worker.memory, worker.nodes) == (1, 8, "64GB", 1)


def test_a_worker_type_goes_over_the_defaults_and_these_over_the_task(tmp_path: Path) -> None:
    text = "defaults: {account: me, cpus: 2}\nworkers: {b-gpu: {gpus: 2, account: you}, b-cpu: {memory: default}}"
    profile = load_profile(write(tmp_path / "p.yml", text))
    task = make_task("task", resources=Resources(cpus="all", gpus=1, memory=3 * 10**9))
    plain = profile.worker(task)
    assert (plain.account, plain.cpus, plain.gpus, plain.memory) == ("me", 2, 1, "3000MB")
    task.definition["workerType"] = "b-gpu"
    assert (profile.worker(task).account, profile.worker(task).gpus) == ("you", 2)
    task.definition["workerType"] = "b-cpu"
    assert profile.worker(task).memory == "default"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("workers: {b-gpu: {partitoin: x}}", "workers.b-gpu.partitoin: unknown key (did you mean partition?)"),
        ("worker: {}", "worker: unknown key (did you mean workers?)"),
        ("workers: {b-gpus: {}}", "workers.b-gpus: no such worker type (did you mean b-gpu?)"),
        ("workers: {b-gpu: {time: 12:00:00}}", "workers.b-gpu.time: found 43200; needed: a text, in quotes"),
        ("workers: {b-gpu: {time: long}}", "workers.b-gpu.time: 'long' is no time"),
        ("workers: {b-gpu: {memory: much}}", "workers.b-gpu.memory: 'much' is no size"),
        ("workers: {b-gpu: {gpus: -1}}", "workers.b-gpu.gpus: found -1"),
        ("workers: {b-gpu: {cpus: some}}", "workers.b-gpu.cpus: found 'some'"),
        ("workers: {b-gpu: {options: [exclude=n1]}}", "workers.b-gpu.options.0: 'exclude=n1' is no option of sbatch"),
        ("workers: {b-gpu: {container: 'a \"b'}}", "workers.b-gpu.container: not a command"),
        ("signal-seconds: 1", "signal-seconds: found 1"),
        ("defaults: {scratch: /tmp}\nworkers: {b-gpu: {nodes: 2}}", "nodes above 1 needs folders that all nodes see"),
        ("a: [", "is not valid YAML"),
        ("- b", "the profile: "),
    ],
)
def test_a_wrong_profile_is_refused_by_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "p.yml", text)
    with pytest.raises(UserError, match=re.escape(message)) as error:
        load_profile(path)
    assert str(error.value).startswith(str(path))


def test_every_key_is_explained() -> None:
    text = (DEFAULT_PROFILE.parents[2] / "docs" / "engines.md").read_text()
    keys = [field.alias for section in (Profile, Worker) for field in section.model_fields.values()]
    assert [key for key in keys if f"`{key}" not in text] == []


def test_a_missing_profile_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yml does not exist"):
        load_profile(tmp_path / "none.yml")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 5400), ("1:30", 90), ("12:00:00", 43200), ("2-00:00:00", 172800), ("1-12", 129600), ("1-01:30", 91800)],
)
def test_times_as_slurm_writes_them(text: str, seconds: int) -> None:
    assert parse_time(text) == seconds
    assert parse_time(format_time(seconds)) == -(-seconds // 60) * 60


def test_the_script_has_the_profiles_lines_and_no_word_of_the_task() -> None:
    script = job_script(Worker(setup=["module load cuda"], python="apptainer exec x.sif python3"), Layout(Path("/r u")))
    assert script.splitlines()[-2:] == [
        "module load cuda",
        "exec apptainer exec x.sif python3 -m limbeck_engines.slurm_task --runs '/r u' \"$@\"",
    ]


def test_only_training_takes_several_nodes() -> None:
    train = make_task("train", 'exec python3 -m pipeline.train.train --src "$MOZ_FETCHES_DIR"/x')
    assert (nodes_of(2, train), nodes_of(2, make_task("other", "python3 -m pipeline.export.export"))) == (2, 1)


def test_a_machine_without_slurm_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    engine = SlurmEngine(tmp_path / "runs")
    with pytest.raises(UserError, match="this machine has no sbatch, squeue, scancel, scontrol"):
        engine.submit("g", "name", [make_task("a")], "")
    assert engine.store.groups() == []


# The record


def order(task: Task, submission: int = 0) -> Order:
    settings = JobSettings("b-cpu", 0, 1, [], None, None, 120, 30)
    return Order("g", submission, task, settings, {"x": Source("label", "task/x/runs/0")}, ["y"])


SQUEUE = """\
7|RUNNING|None|n1|2026-11-21T20:43:27|limbeck:g:0:first
8_0|PENDING|Dependency||N/A|limbeck:g:0:array-0-1
8_1|PENDING|JobArrayTaskLimit||N/A|limbeck:g:0:array-0-1
9|PENDING|QOSMaxJobsPerUserLimit||N/A|limbeck:g:0:queued
10|NODE_FAIL|None|n2|2026-11-21T20:43:27|limbeck:g:0:node
11|OUT_OF_MEMORY|OutOfMemory|n2|2026-11-21T20:43:27|limbeck:g:0:memory
12|CANCELLED|None|n2|2026-11-21T20:43:27|limbeck:g:1:again
13|RUNNING|None|n2|N/A|limbeck:g:2:again
14|RUNNING|None|n2|N/A|limbeck:other:0:gone
15|RUNNING|None|n2|N/A|(null)
16|RUNNING|None|n2|N/A|somebody: else|s
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A group of which Slurm knows what SQUEUE says."""
    store = Store(tmp_path)
    first = make_task("first")
    chunks = [make_task(f"chunk-{n}", after=(first,)) for n in range(2)]
    others = [make_task(name) for name in ("queued", "node", "memory", "again", "gone")]
    tasks = [first, *chunks, *others, make_task("needs", after=(others[2],))]
    store.add_group("g", "name", "", tasks, engine="slurm")
    for number, task in enumerate(tasks):
        order(task).write(store.layout)
        store.update_task(task.task_id, job=str(100 + number))
    GroupFile("root", "profile").write(store.layout, "g")
    write_array(store.layout, "g", "array-0-1", {0: "chunk-0", 1: "chunk-1"})
    return store


def rows(store: Store) -> dict[str, tuple[str, str | None]]:
    return {row.label: (row.state, row.reason) for row in store.tasks("g")}


def test_what_squeue_says_is_found_by_the_tasks_ids(store: Store) -> None:
    reconcile(store, "g", parse_squeue(SQUEUE))
    found = rows(store)
    assert found["first"] == ("running", None)
    assert found["chunk-0"] == ("pending", "blocked: waits for first")
    assert found["chunk-1"] == ("pending", "queued in Slurm: JobArrayTaskLimit")
    assert found["queued"] == ("pending", "queued in Slurm: QOSMaxJobsPerUserLimit")
    assert found["node"] == ("pending", "its job ended as NODE_FAIL; limbeck resume g runs it again")
    assert found["memory"][0] == "failed" and "needed more memory" in str(found["memory"][1])
    assert found["needs"] == ("skipped", "memory")
    assert found["again"] == ("running", None)
    assert found["gone"] == ("pending", "its job is gone; limbeck resume g runs it again")
    jobs = {row.label: row.job for row in store.tasks("g")}
    assert (jobs["first"], jobs["chunk-1"], jobs["again"], jobs["gone"]) == ("7", "8_1", "13", None)
    assert store.group("g").state == "running"


def test_what_a_job_wrote_counts_more_than_what_slurm_says(store: Store) -> None:
    ended = Run(2, 100.0, "n1", "7", 160.0, "failed", 3, "the corpus is empty")
    State(0, [Run(1, 50.0, "n1", "7", 60.0, "lost"), ended]).write(store.layout, "first")
    State(0, [Run(0, 1.0, "n", "14", 2.0, "completed", 0)], "task/gone/runs/0").write(store.layout, "gone")
    reconcile(store, "g", parse_squeue(SQUEUE))
    row = store.task("first")
    assert (row.state, row.run, row.exit_code, row.reason) == ("failed", 2, 3, "the corpus is empty")
    assert (row.started, row.finished) == (100.0, 160.0)
    assert rows(store)["chunk-0"] == rows(store)["chunk-1"] == ("skipped", "first")
    assert rows(store)["gone"] == ("completed", None)


def test_without_slurm_what_jobs_wrote_is_known_all_the_same(store: Store) -> None:
    State(0, [Run(0, 1.0, "n", "7", 2.0, "completed", 0)], "task/first/runs/0").write(store.layout, "first")
    reconcile(store, "g", None)
    assert rows(store)["first"] == ("completed", None)
    assert rows(store)["gone"] == ("pending", None) and store.task("gone").job is not None


def test_what_an_earlier_job_wrote_late_does_not_count(store: Store) -> None:
    order(make_task("gone"), submission=1).write(store.layout)
    State(0, [Run(0, 1.0, "n", "7", 2.0, "failed", 1, "old")]).write(store.layout, "gone")
    reconcile(store, "g", [])
    assert rows(store)["gone"][0] == "pending"


def test_files_may_arrive_after_their_job_has_ended(store: Store) -> None:
    just_now = time.strftime("%Y-%m-%dT%H:%M:%S")
    text = f"7|COMPLETED|None|n1|{just_now}|limbeck:g:0:first\n"
    store.update_task("first", state="running")
    reconcile(store, "g", parse_squeue(text), late=60)
    assert rows(store)["first"][0] == "running"
    reconcile(store, "g", parse_squeue(text), late=0)
    assert rows(store)["first"] == ("failed", "its job ended without a word")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "slurmstepd: error: Detected 1 oom_kill event in StepId=7.batch",
            "needed more memory",
        ),
        ("slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-21 DUE TO TIME LIMIT ***", "ran into the time limit"),
    ],
)
def test_slurms_last_words_tell_of_jobs_that_it_has_forgotten(store: Store, said: str, reason: str) -> None:
    State(0, [Run(0, 1.0, "n", "7")]).write(store.layout, "gone")
    slurm_log(store.layout, "gone").write_text(f"{said}\n")
    reconcile(store, "g", [])
    assert rows(store)["gone"] == ("failed", store.task("gone").reason)
    assert reason in str(store.task("gone").reason) and said in str(store.task("gone").reason)


def test_an_order_is_read_as_it_was_written(tmp_path: Path) -> None:
    layout, task = Layout(tmp_path), make_task("a", resources=Resources(cpus="all", memory=5))
    order(task).write(layout)
    assert Order.read(layout, "a") == order(task)
    assert Comment.parse(str(Comment("g", 3, "a"))) == Comment("g", 3, "a")


def test_a_log_is_followed_into_the_next_run(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    engine = SlurmEngine(tmp_path)
    logs = [store.layout.run("first", number) / "live.log" for number in range(2)]
    steps = iter([True, True, False])

    def goes_on(task_id: str) -> bool:
        if not logs[1].exists() and next(steps):
            logs[1].parent.mkdir(parents=True)
            logs[1].write_text("second\n")
        return next(steps)

    logs[0].parent.mkdir(parents=True)
    logs[0].write_text("first\n")
    monkeypatch.setattr(engine, "_goes_on", goes_on)
    assert list(engine.log_lines("first", follow=True)) == ["first\n", "second\n"]


def test_a_group_of_slurm_is_no_dead_group_of_a_local_engine(store: Store) -> None:
    from limbeck_engines.recovery import recover_dead_groups

    store.update_group("g", state="running")
    store.update_task("first", state="running")
    recover_dead_groups(store)
    assert store.group("g").state == "running" and store.task("first").state == "running"


def test_a_shell_inside_of_a_job_hands_nothing_of_it_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = write(tmp_path / "sbatch", "#!/bin/sh\nenv > $(dirname $0)/env; echo '5;cluster'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("SLURM_JOB_ID", "SLURM_CONF", "CUDA_VISIBLE_DEVICES", "HF_TOKEN"):
        monkeypatch.setenv(name, "x")
    assert Slurm().submit(["--hold"], "script", []) == "5"
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert {"SLURM_CONF", "HF_TOKEN"} <= names and not {"SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES"} & names
