"""A whole run on a deployment: the project's own decision task, action and stages, as their definitions say."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from taskcluster_place import Place, git, taskcluster_place
from taskcluster_worker import RealWorker
from toy_language import write_toy_corpora
from web_server import WebServer
from workplace import Workplace, small_config

from limbeck_taskgraph.catalogue import ROOT


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with taskcluster_place(tmp_path, monkeypatch) as place:
        monkeypatch.setattr("limbeck_engines.taskcluster.PROJECT", place.project)
        yield place


@pytest.mark.slow
def test_a_run_and_a_second_one_that_has_nothing_left_to_do(
    place: Place, web: WebServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("pipeline", "utils", "taskcluster"):
        shutil.copytree(ROOT.parent / name, place.project / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT.parent / "pyproject.toml", place.project)
    git(place.project, "add", ".")
    git(place.project, "commit", "--quiet", "-m", "The project")
    corpora = place.folder / "corpora"
    write_toy_corpora(corpora, train=600)
    for file in corpora.iterdir():
        web.put(f"/{file.name}", file.read_bytes())
    config = small_config(place.folder)
    url = f"url_{web.url}/{{}}.[LANG].zst"
    config["datasets"] = {"train": [url.format("train")], "devtest": [url.format("dev")]}
    people = Workplace(place.folder, config, capsys)
    words = ("--engine", "taskcluster", "--create-decision", "--yes", "--wait")
    with RealWorker(place) as worker:
        first = people.limbeck("train", people.write(), *words)
        assert first.code == 0, first.out + first.err
        assert worker.done[0] == "Decision task" and worker.done[1] == "Action: Train"
        assert worker.done[-1] == "build-vocab-en-de"
        got = place.folder / "got"
        said = people.limbeck("artifacts", "build-vocab-en-de", "--download", got)
        assert said.code == 0 and list((got / "build-vocab-en-de").glob("vocab*.spm")), said.out + said.err
        again = people.limbeck("train", people.write(), "--engine", "taskcluster", "--yes")
        assert again.code == 0 and "0 to run" in again.out, again.out + again.err
        # One value is another: what comes before it is found in the index, by the client and by the action alike.
        count = len(worker.done)
        changed = people.limbeck("train", people.write(experiment={"spm-vocab-size": 408}), *words)
        assert changed.code == 0, changed.out + changed.err
        assert worker.done[count:] == ["Action: Train", "build-vocab-en-de"]
    status = people.limbeck("status").out
    assert "completed  build-vocab-en-de" in status and "reused" not in status
