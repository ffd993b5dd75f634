import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck_engines.artifacts import (
    ArtifactError,
    find_damage,
    is_complete,
    link_inputs,
    plan_inputs,
    publish,
    read_manifest,
)
from pipeline.common.files import write_lines

OUTPUT = {"type": "directory", "path": "artifacts", "name": "public/build"}


def make_run(folder: Path) -> Path:
    (folder / "work/artifacts").mkdir(parents=True)
    return folder


def test_publish_is_one_rename(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run / "work/artifacts/a").write_text("text")
    (run / "work/log").write_text("")
    publish(run, [OUTPUT, {"type": "file", "path": "log", "name": "public/logs/log"}], {"label": "x"})

    assert is_complete(run) and find_damage(run, verify=True) is None
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["label"] == "x"
    assert {name: file["size"] for name, file in manifest["artifacts"].items()} == {
        "public/build/a": 4,
        "public/logs/log": 0,
    }


def test_the_manifest_counts_the_lines_of_compressed_text(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with write_lines(run / "work/artifacts/corpus.en.zst") as corpus:
        for number in range(1234):
            corpus.write(f"line {number}")
    (run / "work/artifacts/vocab.spm").write_bytes(b"a\nb\n")
    publish(run, [OUTPUT], {"digest": "abc"})

    manifest = read_manifest(run)
    assert manifest["digest"] == "abc"
    assert manifest["artifacts"]["public/build/corpus.en.zst"]["lines"] == 1234
    assert "lines" not in manifest["artifacts"]["public/build/vocab.spm"]


def test_compressed_text_that_is_cut_short_is_no_artifact(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    path = run / "work/artifacts/corpus.en.zst"
    with write_lines(path) as corpus:
        corpus.write("line " * 1000)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ArtifactError, match=r"public/build/corpus\.en\.zst is damaged: .* is cut short"):
        publish(run, [OUTPUT], {})
    assert not is_complete(run)


def test_optional_outputs_may_be_missing(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    publish(run, [OUTPUT, {"type": "file", "path": "log", "name": "public/log", "optional": True}], {})
    assert is_complete(run)


def test_links_are_no_artifacts(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run / "work/artifacts/a").symlink_to("/etc/hostname")
    with pytest.raises(ArtifactError, match="public/build/a is a link or a special file"):
        publish(run, [OUTPUT], {})
    assert not is_complete(run)


def plan(fetches: list[dict[str, object]], tmp_path: Path) -> list[tuple[str, str]]:
    makers = {"made": ("corpus", tmp_path / "made")}
    folder = tmp_path / "fetches"
    links = list(plan_inputs(json.dumps(fetches), folder, makers.get))
    link_inputs(links)
    return [(str(link.source.relative_to(tmp_path)), str(link.target.relative_to(folder))) for link in links]


def test_files_and_folders_are_linked(tmp_path: Path) -> None:
    (tmp_path / "made/model/deep").mkdir(parents=True)
    (tmp_path / "made/model/deep/weights").write_text("w")
    (tmp_path / "made/corpus").write_text("c")
    planned = plan(
        [
            {"artifact": "corpus", "task": "made"},
            {"artifact": "corpus", "task": "made", "dest": "a/3/20"},
            {"artifact": "model/", "task": "made", "dest": "b"},
        ],
        tmp_path,
    )
    assert planned == [("made/corpus", "corpus"), ("made/corpus", "a/3/20/corpus"), ("made/model", "b/model")]
    assert (tmp_path / "fetches/b/model/deep/weights").samefile(tmp_path / "made/model/deep/weights")
    assert (tmp_path / "fetches/a/3/20/corpus").read_text() == "c"


@pytest.mark.parametrize(
    ("fetch", "message"),
    [
        ({"artifact": "nothing", "task": "made"}, "the input nothing of corpus is missing"),
        ({"artifact": "corpus/", "task": "made"}, "the input corpus/ of corpus is missing"),
        ({"artifact": "corpus", "task": "unknown"}, "there is no task unknown"),
        ({"artifact": "../corpus", "task": "made"}, "leads out of its folder"),
        ({"artifact": "corpus", "task": "made", "dest": "/etc"}, "leads out of its folder"),
        ({"artifact": "corpus", "task": "made", "extract": True}, "set extract to false"),
    ],
)
def test_inputs_that_cannot_be_had(tmp_path: Path, fetch: dict[str, object], message: str) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made/corpus").write_text("c")
    with pytest.raises(ArtifactError, match=message):
        plan([fetch], tmp_path)


def test_two_inputs_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made/corpus").write_text("c")
    with pytest.raises(ArtifactError, match="two inputs have the same name, corpus"):
        plan([{"artifact": "corpus", "task": "made"}] * 2, tmp_path)


@given(dest=st.lists(st.sampled_from(["..", ".", "", "a", "b"]), max_size=5).map("/".join))
def test_no_dest_leads_out_of_the_inputs_folder(tmp_path_factory: pytest.TempPathFactory, dest: str) -> None:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "made").mkdir()
    (folder / "made/corpus").write_text("c")
    try:
        links = list(
            plan_inputs(
                json.dumps([{"artifact": "corpus", "task": "t", "dest": dest}]),
                folder / "fetches",
                lambda task: ("corpus", folder / "made"),
            )
        )
    except ArtifactError:
        return
    assert links[0].target.resolve().is_relative_to((folder / "fetches").resolve())
