"""The queue's read API: what Taskcluster's own schemas say, and what a continuation on another machine needs."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from engine_graphs import make_engine, make_task
from serve_site import TOKEN, Site, serve_site
from taskcluster_schemas import check, needs_schemas

from limbeck_engines.local import LocalEngine
from limbeck_engines.store import Store
from limbeck_taskgraph.config_file import parse_training_config
from pipeline.common import remote
from pipeline.common.download import MissingError
from pipeline.common.files import read_lines
from pipeline.continuation import vocab as continuation_vocab
from utils.serve.queue_api import content_type
from utils.task_uris import with_local_tasks

API = "/api/queue/v1"
BUILD = "public/build"


@pytest.fixture(scope="module")
def real(small_run: Path) -> Iterator[Site]:
    """A real run of the pipeline up to its vocabulary; other machines need the token."""
    with serve_site(small_run / "runs", public=False, loopback=False) as site:
        yield site


@pytest.fixture(scope="module")
def store(small_run: Path) -> Store:
    return Store(small_run / "runs")


def ask(site: Site, path: str) -> Any:
    answer = site.get(f"{API}{path}", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200, answer.text
    return answer.json()


@needs_schemas
def test_answers_are_what_taskcluster_s_schemas_say(real: Site, store: Store) -> None:
    group = store.groups()[0].group_id
    listed = ask(real, f"/task-group/{group}/list")
    check(listed, "queue__v1__list-task-group-response")
    assert len(listed["tasks"]) == len(store.tasks(group))
    for row in store.tasks(group):
        check(ask(real, f"/task/{row.task_id}"), "queue__v1__task")
        check(ask(real, f"/task/{row.task_id}/status"), "queue__v1__task-status-response")
        for path in (f"/task/{row.task_id}/artifacts", f"/task/{row.task_id}/runs/0/artifacts"):
            found = ask(real, path)
            check(found, "queue__v1__list-artifacts-response")
            assert found["artifacts"]


@needs_schemas
@pytest.mark.parametrize(
    ("state", "run", "expected", "runs"),
    [
        ("pending", None, "pending", ["pending"]),
        ("running", 0, "running", ["running"]),
        ("failed", 2, "failed", ["exception", "exception", "failed"]),
        ("skipped", None, "unscheduled", []),
        ("cancelled", 0, "exception", ["exception"]),
        ("reused", None, "completed", ["completed"]),
        ("pending", 1, "pending", ["exception", "pending"]),
    ],
)
def test_states_as_the_queue_calls_them(
    small_run: Path, tmp_path: Path, state: str, run: int | None, expected: str, runs: list[str]
) -> None:
    shutil.copytree(small_run / "runs", tmp_path / "runs")
    store = Store(tmp_path / "runs")
    row = store.tasks(store.groups()[0].group_id)[0]
    with serve_site(tmp_path / "runs") as site:
        store.update_task(row.task_id, state=state, run=run)
        status = ask(site, f"/task/{row.task_id}/status")
    check(status, "queue__v1__task-status-response")
    assert status["status"]["state"] == expected
    assert [entry["state"] for entry in status["status"]["runs"]] == runs


def test_artifacts_are_listed_with_sizes_and_types(real: Site, store: Store) -> None:
    task = store.done_by_label("build-vocab-en-de", 1)[0]
    found = {entry["name"]: entry for entry in ask(real, f"/task/{task.task_id}/artifacts")["artifacts"]}
    path = LocalEngine(store.layout.root).artifacts(task.task_id)[f"{BUILD}/vocab.en.spm"]
    assert found[f"{BUILD}/vocab.en.spm"]["contentLength"] == path.stat().st_size
    assert ask(real, f"/task/{task.task_id}")["metadata"]["source"] == f"{real.url}/task/{task.task_id}"


def test_a_url_is_the_source_of_a_continuation(real: Site, store: Store, tmp_path: Path) -> None:
    """As on another machine: the config keeps the URL, and the pipeline's own step fetches what it names."""
    task = store.done_by_label("build-vocab-en-de", 1)[0]
    folder = f"{real.url}{API}/task/{task.task_id}/artifacts/{BUILD}?token={TOKEN}"
    src, trg = (remote.join(folder, f"vocab.{language}.spm") for language in ("en", "de"))
    text = f"""
      experiment: {{name: second, src: en, trg: de}}
      datasets: {{train: [gettext_one], devtest: [gettext_dev]}}
      continuation: {{vocab: {{src: "{src}", trg: "{trg}"}}}}
    """
    config = with_local_tasks(parse_training_config(text), Store(tmp_path / "elsewhere"))
    source = config.model_dump()["continuation"]["vocab"]
    assert source["src"].startswith(real.url)
    continuation_vocab.main(
        [
            *("--src-uri", source["src"], "--trg-uri", source["trg"]),
            *("--output-src", str(tmp_path / "vocab.en.spm"), "--output-trg", str(tmp_path / "vocab.de.spm")),
        ]
    )
    made = LocalEngine(store.layout.root).artifacts(task.task_id)[f"{BUILD}/vocab.en.spm"]
    assert (tmp_path / "vocab.en.spm").read_bytes() == made.read_bytes()


def test_corpora_come_as_they_are(real: Site, store: Store, tmp_path: Path) -> None:
    task = store.done_by_label("corpus-merge-parallel-en-de", 1)[0]
    url = f"{real.url}{API}/task/{task.task_id}/artifacts/{BUILD}/corpus.en.zst?token={TOKEN}"
    path = LocalEngine(store.layout.root).artifacts(task.task_id)[f"{BUILD}/corpus.en.zst"]
    assert remote.size(url) == path.stat().st_size
    remote.fetch(url, tmp_path / "corpus.en.zst")
    assert list(read_lines(tmp_path / "corpus.en.zst")) == list(read_lines(path))
    with pytest.raises(MissingError):
        remote.size(url.replace("corpus.en", "corpus.fr"))


def test_parts_of_an_artifact(site: Site, engine: LocalEngine) -> None:
    url = f"{API}/task/made/artifacts/{BUILD}/model.bin"
    whole = engine.artifacts("made")[f"{BUILD}/model.bin"].read_bytes()
    part = site.get(url, headers={"Range": "bytes=100-355"})
    assert part.status_code == 206 and part.content == whole[100:356]
    assert part.headers["Content-Range"] == f"bytes 100-355/{len(whole)}"
    assert site.get(url, headers={"Range": "bytes=-10"}).content == whole[-10:]
    assert site.get(url, headers={"Range": f"bytes={len(whole)}-"}).status_code == 416
    head = requests.head(site.url + url, timeout=30)
    assert head.headers["Content-Length"] == str(len(whole)) and not head.content
    assert site.get(url.replace("artifacts", "runs/0/artifacts")).content == whole


def test_a_packed_copy_beside_an_artifact_is_another_artifact(tmp_path: Path) -> None:
    """As an export for the browser has them."""
    engine = make_engine(tmp_path / "runs")
    script = "cd $TASK_WORKDIR/artifacts && seq 5000 > model.bin && gzip -k model.bin"
    engine.submit("group", "A run", [make_task("task", script)], "")
    assert engine.run("group").succeeded
    files = engine.artifacts("task")
    with serve_site(tmp_path / "runs") as site:
        url = f"{site.url}{API}/task/task/artifacts/{BUILD}/model.bin"
        packing = {"Accept-Encoding": "gzip, br"}
        assert remote.size(url) == files[f"{BUILD}/model.bin"].stat().st_size
        answer = requests.get(url, headers=packing, timeout=30)
        assert "Content-Encoding" not in answer.headers
        assert answer.content == files[f"{BUILD}/model.bin"].read_bytes()
        part = requests.get(url, headers={**packing, "Range": "bytes=10-19"}, timeout=30)
        assert part.content == answer.content[10:20]
        packed = requests.get(f"{url}.gz", headers=packing, timeout=30)
        assert packed.content == files[f"{BUILD}/model.bin.gz"].read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "/task/none",
        "/task/none/status",
        "/task/made/artifacts/public/build/none",
        "/task/made/runs/7/artifacts",
        "/task/made/runs/7/artifacts/public/build/model.bin",
        "/task/fails/artifacts",
        "/task-group/none/list",
        "/nothing",
    ],
)
def test_what_is_not_there_is_told_as_taskcluster_does(site: Site, path: str) -> None:
    answer = site.get(API + path)
    assert answer.status_code == 404
    error = answer.json()
    assert error["code"] == "ResourceNotFound" and error["message"]
    assert error["requestInfo"]["method"] == "GET"


def test_types() -> None:
    assert content_type("corpus.en.zst") == "application/zstd"
    assert content_type("model.npz") == "application/octet-stream"
    assert content_type("corpus.stats.json") == "application/json"
    assert content_type("train.jsonl").startswith("text/plain")
    assert content_type("report.html") == "text/html; charset=utf-8"
