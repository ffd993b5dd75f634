"""The commands that a person types, for runs on a Taskcluster deployment."""

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import slugid
import yaml
from taskcluster_place import Place, definition, git, taskcluster_place
from workplace import Said, Workplace

from limbeck_engines.store import Store
from limbeck_taskgraph.config_file import load_training_config
from limbeck_taskgraph.deployment import index_path
from limbeck_taskgraph.generate import generate_graph
from pipeline.common.errors import UserError
from utils.task_uris import with_local_tasks

CONFIG: dict[str, Any] = {
    "experiment": {"name": "mine", "src": "en", "trg": "de"},
    "datasets": {"train": ["gettext_one", "gettext_two"], "devtest": ["gettext_dev"], "test": ["gettext_test"]},
    "target-stage": "build-vocab",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with taskcluster_place(tmp_path, monkeypatch) as place:
        monkeypatch.setattr("limbeck_engines.taskcluster.PROJECT", place.project)
        yield place


@pytest.fixture
def people(place: Place, capsys: pytest.CaptureFixture[str]) -> Workplace:
    return Workplace(place.folder, CONFIG, capsys)


def train(people: Workplace, *words: str, **changes: Any) -> Said:
    return people.limbeck("train", people.write(**changes), "--engine", "taskcluster", "--no-probe", *words)


def indexed(place: Place, people: Workplace, label: str) -> str:
    """A finished task of an earlier run that means what the config's task of that label does."""
    task = generate_graph(load_training_config(people.write())).tasks[label]
    languages = [task.attributes["src_locale"], task.attributes["trg_locale"]]
    route = index_path(place.graph_config, "1", task.kind, languages, task.attributes["digest"])
    task_id = slugid.nice()
    extra = {"limbeck": task.task["extra"]["limbeck"]}
    place.state.create(task_id, definition(label, task_id, routes=[f"index.{route}"], dependencies=[], extra=extra))
    place.do(task_id)
    return task_id


def test_the_plan_knows_the_index_and_pushes_nothing(place: Place, people: Workplace) -> None:
    plain = train(people, "--dry-run")
    assert plain.code == 0, plain.err
    assert "0 tasks reused" in plain.out and "run       build-vocab-en-de" in plain.out
    merged = indexed(place, people, "corpus-merge-parallel-en-de")
    place.server.page = 1
    done = train(people, "--dry-run", "--json")
    tasks = json.loads(done.out)["tasks"]
    assert {label: task["task-id"] for label, task in tasks.items() if task["action"] == "reused"} == {
        "corpus-merge-parallel-en-de": merged
    }
    assert set(tasks) == {"build-vocab-en-de", "corpus-merge-parallel-en-de"}
    assert git(place.remote, "branch") == "" and not Store(people.runs).groups()


def test_earlier_groups_are_used_by_name(place: Place, people: Workplace) -> None:
    earlier = place.recorded_group({"corpus-merge-parallel-en-de": ()})
    merged = place.ids["corpus-merge-parallel-en-de"]
    place.do(merged)
    place.state.add_artifact(
        earlier, "public/label-to-taskid.json", json.dumps({"corpus-merge-parallel-en-de": merged}).encode()
    )
    done = train(people, "--dry-run", previous_group_ids=[earlier])
    assert f"by name   corpus-merge-parallel-en-de: {merged}" in done.out, done.err
    done = train(people, "--dry-run", previous_group_ids=[slugid.nice()])
    assert done.code == 2 and "previous-group-ids" in done.err


def test_a_run_from_the_trigger_to_its_artifacts(place: Place, people: Workplace) -> None:
    given: list[Any] = []

    def make_tasks(group: str, config: Any) -> None:
        given.append(config)
        place.add_tasks(group, {"dataset-one": (), "build-vocab-en-de": ("dataset-one",)})

    with place.worker(make_tasks):
        done = train(people, "--yes", "--create-decision", "--target-stage", "corpus-merge-parallel")
        assert done.code == 0, done.err
        (group,) = Store(people.runs).groups()
        assert f"page    {place.server.url}/tasks/groups/{group.group_id}" in done.out
        while "build-vocab-en-de" not in people.limbeck("status").out:
            time.sleep(0.02)
    assert given == [{**CONFIG, "target-stage": "corpus-merge-parallel"}]
    assert yaml.safe_load(group.config) == given[0]
    trigger = json.loads((people.runs / "triggers.jsonl").read_text())
    assert trigger["group"] == group.group_id

    assert "2 pending" in people.limbeck("status").out
    place.do("dataset-one", log=b"read 3 lines\n")
    assert people.limbeck("logs", "dataset-one").out == "read 3 lines\n"
    assert people.limbeck("logs", "build-vocab-en-de").err.startswith("error: ")
    content = b"vocabulary" * 1000
    place.do("build-vocab-en-de", log=b"")
    place.state.add_artifact(place.ids["build-vocab-en-de"], "public/build/vocab.en.spm", content)
    digest = hashlib.sha256(content).hexdigest()
    checked = {"x-amz-meta-content-sha256": digest}
    place.state.add_artifact(place.ids["build-vocab-en-de"], "public/build/folder/vocab.de.spm", content, **checked)

    said = people.limbeck("runs").out
    assert "3 of 3 tasks done" in said and "completed" in said
    said = people.limbeck("artifacts", "build-vocab-en-de", "--download", str(place.folder / "got")).out
    assert "10,000  vocab.en.spm  copied, unchecked (no SHA-256 is known)" in said
    assert "10,000  folder/vocab.de.spm  copied\n" in said
    assert (place.folder / "got/build-vocab-en-de/folder/vocab.de.spm").read_bytes() == content
    said = people.limbeck("artifacts", group.group_id, "--download", str(place.folder / "got")).out
    assert "folder/vocab.de.spm  is there" in said
    place.state.artifacts[place.ids["build-vocab-en-de"], 0, "public/build/folder/vocab.de.spm"].content = b"v" * 10_000
    damaged = people.limbeck("artifacts", "build-vocab-en-de", "--download", str(place.folder / "again"))
    assert damaged.code == 2 and "is damaged" in damaged.err
    assert not (place.folder / "again/build-vocab-en-de/folder/vocab.de.spm").exists()

    # A run of this machine does not take it for its own.
    local = people.limbeck("train", people.write(), "--dry-run", "--no-probe")
    assert "0 tasks reused" in local.out and "damaged" not in local.out


def test_waiting_ends_with_the_figures(place: Place, people: Workplace) -> None:
    figures = {
        "name": "teacher",
        "dataset": "gettext_test",
        "src": "en",
        "trg": "de",
        "chrf": {"score": 50.0},
        "bleu": {"score": 20.0},
    }
    report = {"metrics": [figures], "samples": [{"source": "a", "reference": "b", "hypotheses": {"teacher": "c"}}]}

    def make_tasks(group: str, config: Any) -> None:
        place.add_tasks(group, {"report-en-de": (), "export-en-de": ()}, dependencies=[])
        for label, files in (
            ("report-en-de", {"report.html": b"<html>", "report.json": json.dumps(report).encode()}),
            ("export-en-de", {"export/model.bin": b"model"}),
        ):
            place.state.claim(place.ids[label])
            for name, content in files.items():
                place.state.add_artifact(place.ids[label], f"public/build/{name}", content)
            place.state.resolve(place.ids[label])

    with place.worker(make_tasks):
        done = train(people, "--yes", "--create-decision", "--wait")
    assert done.code == 0, done.err
    assert "hypotheses" not in done.out and "teacher" in done.out and "50.0" in done.out
    assert f"/api/queue/v1/task/{place.ids['export-en-de']}/" in done.out
    assert f"limbeck artifacts {place.ids['export-en-de']} --download ." in done.out
    group = people.group
    compared = people.limbeck("compare", group[:10], group)
    assert compared.code == 0 and "50.0" in compared.out, compared.err


def test_a_failed_run_goes_on(place: Place, people: Workplace) -> None:
    group = place.recorded_group({"one": (), "two": ("one",)})
    place.do("one", "failed", log=b"error: no room\n")
    said = people.limbeck("status", "--failed").out
    assert "failed     one" in said and "no room" in said and "skipped    two  (needs one)" in said
    done = people.limbeck("resume")
    assert done.code == 0 and f"limbeck status {group}" in done.out, done.err
    assert people.limbeck("cancel").out.startswith(f"test ({group}) is cancelled")
    assert "2 cancelled" in people.limbeck("status").out


def test_what_lies_on_this_machine_is_refused_with_what_to_do(place: Place, people: Workplace) -> None:
    done = train(people, "--dry-run", datasets={**CONFIG["datasets"], "train": ["file_/data/corpus.[LANG].zst"]})
    assert done.code == 2 and "files of this machine" in done.err and "file_/data/corpus.[LANG].zst" in done.err
    assert "limbeck serve" in done.err
    corpus = {"corpora": {"parallel": {"src": "/data/corpus.en.zst", "trg": "/data/corpus.de.zst"}}}
    done = train(people, "--dry-run", continuation=corpus)
    assert done.code == 2 and "/data/corpus.en.zst" in done.err, done.out
    served = f"http://host:8000/api/queue/v1/task/{slugid.nice()}/artifacts/public/build"
    urls = {"corpora": {"parallel": {"src": f"{served}/corpus.en.zst", "trg": f"{served}/corpus.de.zst"}}}
    done = train(people, "--dry-run", continuation=urls)
    assert done.code == 0, done.err


def test_tasks_of_a_deployment_are_named_by_their_urls(place: Place, people: Workplace) -> None:
    group = place.recorded_group({"build-vocab-en-de": ()})
    place.do("build-vocab-en-de")
    place.engine().status(group)
    task = place.ids["build-vocab-en-de"]
    uri = f"task/{task}/artifacts/public/build/vocab.spm"
    config = load_training_config(people.write(continuation={"vocab": {"src": uri, "trg": uri}}))
    resolved = with_local_tasks(config, Store(people.runs)).model_dump(by_alias=True)["continuation"]["vocab"]
    assert resolved["src"] == f"{place.server.url}/api/queue/v1/{uri}"


@pytest.mark.parametrize("flag", ["--no-reuse", "--verify", "--force-stage=dataset", "--existing-task=a=b"])
def test_flags_of_other_engines_are_refused(people: Workplace, flag: str) -> None:
    done = train(people, "--dry-run", flag)
    assert done.code == 2 and f"{flag.split('=')[0]} is for engines that use the runs folder" in done.err


def test_nobody_is_asked_before_the_credentials_are_known(
    place: Place, people: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TASKCLUSTER_CLIENT_ID")
    done = train(people, "--yes")
    assert done.code == 2 and "taskcluster signin" in done.err and "reused" not in done.out
    assert train(people, "--dry-run").code == 0
    monkeypatch.delenv("TASKCLUSTER_ROOT_URL")
    with pytest.raises(UserError, match=r"not signed in to https://taskcluster.example.com"):
        place.engine().check()
