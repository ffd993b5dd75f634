"""The trigger: the plan it shows, what it asks, and what is reused by digest and by name."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from workplace import Workplace

VOCAB = "build-vocab-en-de"
MERGE = "corpus-merge-parallel-en-de"
STRICTER = {"experiment": {"cleaning": {"default": {"language": False, "max-words": 8}}}}


def to_run(out: str) -> set[str]:
    """The first labels of the paragraphs of what runs."""
    return set(re.findall(r"^  (?:run|download) +(\S+)", out, re.MULTILINE))


def test_a_changed_value_is_named_with_what_it_was(workplace: Workplace) -> None:
    done = workplace.limbeck("train", workplace.write(experiment={"spm-vocab-size": 408}), "--dry-run")
    assert done.code == 0
    assert to_run(done.out) == {VOCAB}
    assert re.search(
        rf"run +{VOCAB}  \[b-cpu\]  about .* s, from 1 earlier task\n +(spm-)?vocab-size 400 -> 408\n", done.out
    )
    assert "1 tasks reused, 0 to download, 1 to run" in done.out
    assert "reuse     corpus-merge-parallel" in done.out
    assert "disk: about" in done.out


def test_work_made_from_named_tasks_is_never_taken_for_the_graphs_own(workplace: Workplace) -> None:
    named = workplace.write(
        "named.yml",
        **{**STRICTER, "experiment": {**STRICTER["experiment"], "spm-vocab-size": 408}},
        previous_group_ids=[workplace.group[:6]],
        start_task_prefix="build-",
    )
    merged = workplace.task(MERGE)
    done = workplace.limbeck("train", named, "--yes")
    assert done.code == 0, done.out
    assert to_run(done.out) == {VOCAB} and "start-task-prefix is build-" in done.out
    assert re.search(rf"by name   {MERGE}: {merged}\n +although input \S+ changed", done.out)
    vocab = workplace.task(VOCAB)
    assert merged in workplace.store.task(vocab).dependencies

    plain = workplace.write(
        "plain.yml", **{**STRICTER, "experiment": {**STRICTER["experiment"], "spm-vocab-size": 408}}
    )
    done = workplace.limbeck("train", plain, "--yes")
    assert done.code == 0, done.out
    assert {VOCAB, MERGE} < to_run(done.out)
    assert re.search(rf"run +{VOCAB}.*\n +input corpus(/parallel)? changed", done.out)
    assert workplace.task(VOCAB) != vocab
    assert workplace.store.task(workplace.task(VOCAB)).digest != workplace.store.task(vocab).digest

    # What it really is, is what a plain run of the first corpus would make.
    first = workplace.limbeck(
        "train", workplace.write("first.yml", experiment={"spm-vocab-size": 408}), "--json", "--yes"
    )
    assert json.loads(first.out)["tasks"][VOCAB]["task-id"] == vocab


def test_of_two_named_runs_the_later_wins(workplace: Workplace) -> None:
    first, old = workplace.group, workplace.task(VOCAB)
    assert workplace.limbeck("train", workplace.write(experiment={"spm-vocab-size": 408}), "--yes").code == 0
    second, new = workplace.group, workplace.task(VOCAB)
    for groups, expected in (([first, second], new), ([second, first], old)):
        config = workplace.write(previous_group_ids=groups, experiment={"spm-vocab-size": 416})
        plan = json.loads(workplace.limbeck("train", config, "--dry-run", "--json").out)
        assert plan["tasks"][VOCAB] == plan["tasks"][VOCAB] | {"action": "reused", "task-id": expected, "by-name": True}
        assert plan["counts"] == {"reused": 1, "download": 0, "run": 0}


def test_existing_tasks_win_over_everything(workplace: Workplace) -> None:
    vocab, merged = workplace.task(VOCAB), workplace.task(MERGE)
    changed = workplace.write(**STRICTER, existing_tasks={MERGE: merged}, start_task_prefix="corpus-merge-parallel")
    done = workplace.limbeck("train", changed, "--no-reuse", "--dry-run")
    assert to_run(done.out) == {VOCAB} and f"by name   {MERGE}: {merged}" in done.out
    done = workplace.limbeck("train", changed, "--existing-task", f"{VOCAB}={vocab}", "--no-reuse", "--dry-run")
    assert "1 tasks reused, 0 to download, 0 to run" in done.out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--existing-task", "build-vocab-en=x"], "no task build-vocab-en; did you mean build-vocab-en-de?"),
        (["--existing-task", f"{VOCAB}=nobody"], "build-vocab-en-de: there is no task nobody in"),
        (["--existing-task", VOCAB], "write LABEL=TASKID"),
        (["--force-stage", "build-vocabs"], "no stage build-vocabs; did you mean build-vocab?"),
        (["--target-stage", "build-vocabs"], "target-stage: found 'build-vocabs'"),
        (["--json"], "give --dry-run or --yes too"),
    ],
)
def test_what_is_not_there_is_an_error_with_the_nearest(workplace: Workplace, flags: list[str], said: str) -> None:
    done = workplace.limbeck("train", workplace.write(), *flags)
    assert done.code == 2
    assert said in done.err


def test_runs_and_tasks_that_cannot_be_named(workplace: Workplace) -> None:
    done = workplace.limbeck("train", workplace.write(previous_group_ids=["nowhere"]), "--dry-run")
    assert done.code == 2 and "previous-group-ids: the id of no run" in done.err and "begins with nowhere" in done.err
    workplace.store.update_task(workplace.task(MERGE), state="failed")
    failed = next(row for row in workplace.store.tasks(workplace.group) if row.label == MERGE)
    done = workplace.limbeck("train", workplace.write(), "--existing-task", f"{MERGE}={failed.task_id}")
    assert done.code == 2 and f"{MERGE} ({failed.task_id}) cannot be used: it is failed" in done.err


def test_a_named_task_without_the_files_that_are_read_is_refused_before_anything_runs(workplace: Workplace) -> None:
    flags = ["--existing-task", f"{MERGE}={workplace.task(VOCAB)}", "--force-stage", "build-vocab"]
    done = workplace.limbeck("train", workplace.write(), *flags, "--yes")
    assert done.code == 2
    assert f"has no public/build/corpus.en.zst, which {VOCAB} reads" in done.err
    assert len(workplace.store.groups()) == 1


def corpus_of(workplace: Workplace) -> Path:
    folder = workplace.store.run_folder(workplace.task(MERGE))
    assert folder is not None
    return folder / "artifacts/public/build/corpus.en.zst"


def flip_a_byte(path: Path) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(50)
        byte = file.read(1)
        file.seek(50)
        file.write(bytes([byte[0] ^ 1]))


def test_a_flipped_byte_makes_a_task_run_again(workplace: Workplace) -> None:
    corpus, flags = corpus_of(workplace), ("--force-stage", "build-vocab")
    size, published = corpus.stat().st_size, corpus.stat().st_mtime_ns
    flip_a_byte(corpus)
    assert corpus.stat().st_size == size
    plan = workplace.limbeck("train", workplace.write(), *flags, "--dry-run").out
    assert f"artifacts of {MERGE} ({workplace.task(MERGE)}) are damaged: {corpus} has another SHA-256" in plan
    assert to_run(plan) == {VOCAB, MERGE}

    # A disk that spoils a file by itself leaves its time as it was; only a full check sees that.
    os.utime(corpus, ns=(published, published))
    assert to_run(workplace.limbeck("train", workplace.write(), *flags, "--dry-run").out) == {VOCAB}
    done = workplace.limbeck("train", workplace.write(), *flags, "--verify", "--yes")
    assert done.code == 0 and to_run(done.out) == {VOCAB, MERGE}
    assert "0 to run" in workplace.limbeck("train", workplace.write(), "--verify", "--dry-run").out


def test_artifacts_that_are_gone_are_made_again(workplace: Workplace) -> None:
    folder = workplace.store.run_folder(workplace.task(VOCAB))
    assert folder is not None
    shutil.rmtree(folder.parent.parent)
    plan = workplace.limbeck("train", workplace.write(), "--dry-run").out
    assert re.search(rf"run +{VOCAB}.*\n +artifacts of {VOCAB} \(.*\) are damaged: .* does not exist", plan)


def test_nobody_to_ask_is_refused_with_what_would_be_right(workplace: Workplace) -> None:
    done = workplace.limbeck("train", workplace.write(), "--force-stage", "build-vocab")
    assert done.code == 2
    assert "give --yes to start, or --dry-run" in done.err
    assert VOCAB in done.out
    assert len(workplace.store.groups()) == 1
    assert workplace.limbeck("train", workplace.write()).code == 0  # nothing to ask about


@pytest.mark.parametrize(
    ("answers", "started"), [(["n"], False), (["what", ""], True), (["Yes"], True), (["no"], False)]
)
def test_the_answer_counts(
    workplace: Workplace, answer: Callable[..., None], answers: list[str], started: bool
) -> None:
    answer(*answers)
    done = workplace.limbeck("train", workplace.write(), "--force-stage", "build-vocab")
    assert done.code == 0
    assert done.out.count("Start training? [Y/n]") == len(answers)
    assert len(workplace.store.groups()) == 1 + started


def test_programs_get_the_plan_as_json_and_nothing_else(workplace: Workplace) -> None:
    config = workplace.write(experiment={"spm-vocab-size": 408})
    done = workplace.limbeck("train", config, "--json", "--yes")
    plan = json.loads(done.out)
    assert plan["group"] == workplace.group
    assert plan["counts"] == {"reused": 1, "download": 0, "run": 1}
    assert plan["tasks"].keys() == {VOCAB, MERGE}
    assert plan["tasks"][VOCAB]["action"] == "run" and plan["tasks"][VOCAB]["worker-type"] == "b-cpu"
    assert plan["tasks"][VOCAB]["reasons"][0].endswith("vocab-size 400 -> 408")
    assert plan["tasks"][MERGE]["task-id"] == workplace.task(MERGE)
    assert plan["estimates"]["build-vocab"]["earlier-tasks"] == 1 and plan["estimates"]["build-vocab"]["seconds"] > 0
    assert plan["disk"]["needed"] == plan["estimates"]["build-vocab"]["bytes"] > 0
    assert "completed" in done.err


def test_every_trigger_leaves_a_line_and_a_dry_run_none(workplace: Workplace) -> None:
    log = workplace.runs / "triggers.jsonl"
    before = log.read_text()
    config = workplace.write()
    workplace.limbeck("train", config, "--dry-run")
    assert log.read_text() == before
    workplace.limbeck("train", config, "--force-stage", "build-vocab", "--yes")
    workplace.limbeck("train", config)
    assert log.read_text().startswith(before)
    first, ran, reused = map(json.loads, log.read_text().splitlines())
    assert ran["group"] == workplace.group and ran["config"] == str(config) and ran["name"] == "small"
    assert ran["counts"] == {"reused": 1, "download": 0, "run": 1}
    assert ran["flags"][1:3] == ["--force-stage", "build-vocab"] and ran["versions"]["limbeck"]
    assert reused["group"] is None and first["counts"]["run"] > 3
