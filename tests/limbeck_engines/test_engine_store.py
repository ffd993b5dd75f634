import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_graphs import BUILD, make_engine, make_task

from limbeck_engines.base import Resources
from limbeck_engines.local import LocalEngine
from limbeck_engines.store import Store
from pipeline.common.errors import UserError


@pytest.fixture
def engine(tmp_path: Path) -> LocalEngine:
    engine = make_engine(tmp_path)
    engine.submit("g", "done", [make_task("corpus", "echo text > artifacts/corpus; echo x > artifacts/x")], "")
    assert engine.run("g").succeeded
    return engine


DIGEST = make_task("corpus").digest


def test_lookup_finds_a_completed_digest(engine: LocalEngine) -> None:
    assert engine.store.lookup(DIGEST) == "corpus"
    assert engine.store.lookup(DIGEST, checksums=True) == "corpus"
    assert engine.store.lookup("0" * 64) is None


def test_lookup_takes_the_newest(engine: LocalEngine) -> None:
    engine.submit("g2", "again", [make_task("corpus", task_id="newer")], "")
    engine.run("g2")
    assert engine.store.lookup(DIGEST) == "newer"


def remove(path: Path) -> None:
    path.unlink()


def shorten(path: Path) -> None:
    path.chmod(0o644)
    path.write_text("te")


def alter(path: Path) -> None:
    path.chmod(0o644)
    path.write_text("TEXT\n")


def remove_manifest(path: Path) -> None:
    (path.parents[3] / "manifest.json").unlink()


def spoil_manifest(path: Path) -> None:
    (path.parents[3] / "manifest.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "checksums", "reason"),
    [
        (remove, False, "corpus does not exist"),
        (shorten, False, "corpus has 2 bytes instead of 5"),
        (alter, True, "corpus has another SHA-256 than its manifest says"),
        (remove_manifest, False, "manifest.json does not exist"),
        (spoil_manifest, False, "manifest.json is not a manifest"),
    ],
)
def test_lookup_passes_over_damage_and_says_why(
    engine: LocalEngine,
    damage: Callable[[Path], None],
    checksums: bool,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    damage(engine.artifact_path("corpus", f"{BUILD}/corpus"))

    with caplog.at_level(logging.WARNING):
        assert engine.store.lookup(DIGEST, checksums) is None
    assert reason in caplog.text and "corpus (corpus) cannot be reused" in caplog.text
    assert str(engine.store.damage(engine.store.task("corpus"), checksums)).endswith(reason)


def test_sizes_alone_do_not_see_altered_text(engine: LocalEngine) -> None:
    alter(engine.artifact_path("corpus", f"{BUILD}/corpus"))
    assert engine.store.lookup(DIGEST) == "corpus"


def test_latest_by_label_has_the_definition_to_compare_with(engine: LocalEngine) -> None:
    row = engine.store.latest_by_label("corpus")
    assert row is not None and row.task_id == "corpus"
    assert row.definition["tags"]["kind"] == "example"
    engine.submit("g2", "other", [make_task("corpus", "exit 1", task_id="failed")], "")
    engine.run("g2")
    assert engine.store.latest_by_label("corpus") == row
    assert engine.store.latest_by_label("vocab") is None


def test_a_task_comes_back_as_it_was_submitted(tmp_path: Path) -> None:
    first = make_task("a-ü", task_id="a")
    task = make_task("b", after=(first,), resources=Resources("all", 1, 5 << 30))
    store = Store(tmp_path)
    store.add_group("g", "name", "config", [first, task])
    assert [row.task() for row in store.tasks("g")] == [first, task]
    assert task.kind == "example" and 75 in task.retry_codes


def test_groups_are_listed_newest_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("g1", "g2", "g3"):
        store.add_group(name, name, "", [])
    assert [group.group_id for group in store.groups()] == ["g3", "g2", "g1"]


def test_a_group_is_recorded_whole_or_not_at_all(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add_group("g1", "", "", [make_task("a")])
    with pytest.raises(UserError, match="submitted before"):
        store.add_group("g2", "", "", [make_task("b"), make_task("a")])
    assert [group.group_id for group in store.groups()] == ["g1"]
    assert store.find_task("b") is None


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / "limbeck.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(UserError, match="newer version of Limbeck"):
        Store(tmp_path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "limbeck.sqlite").write_text("not a database, by no means one")
    with pytest.raises(UserError, match="cannot be used as the record of runs"):
        Store(tmp_path)
