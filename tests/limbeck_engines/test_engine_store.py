import logging
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_graphs import BUILD, make_engine, make_task

from limbeck_engines.local import LocalEngine
from limbeck_engines.store import Store
from limbeck_engines.task import Resources
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
    ("damage", "reason"),
    [
        (remove, "corpus does not exist"),
        (shorten, "corpus has 2 bytes instead of 5"),
        (alter, "corpus has another SHA-256 than its manifest says"),
        (remove_manifest, "manifest.json does not exist"),
        (spoil_manifest, "manifest.json is not a manifest"),
    ],
)
def test_lookup_passes_over_damage_and_says_why(
    engine: LocalEngine, damage: Callable[[Path], None], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage(engine.artifact_path("corpus", f"{BUILD}/corpus"))

    with caplog.at_level(logging.WARNING):
        assert engine.store.lookup(DIGEST) is None
    assert reason in caplog.text and "corpus (corpus) cannot be reused" in caplog.text
    assert str(engine.store.damage(engine.store.task("corpus"))).endswith(reason)


def test_only_a_full_check_sees_what_the_disk_itself_changed(engine: LocalEngine) -> None:
    path, row = engine.artifact_path("corpus", f"{BUILD}/corpus"), engine.store.task("corpus")
    published = path.stat().st_mtime_ns
    alter(path)
    os.utime(path, ns=(published, published))

    assert engine.store.damage(row) is None
    assert "another SHA-256" in str(engine.store.damage(row, verify=True))


def test_a_copied_file_is_hashed_once(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    path, row = engine.artifact_path("corpus", f"{BUILD}/corpus"), engine.store.task("corpus")
    os.utime(path, (1, 1))
    assert engine.store.damage(row) is None

    hashed: list[Path] = []
    monkeypatch.setattr("limbeck_engines.artifacts.sha256", hashed.append)
    assert engine.store.damage(row) is None
    assert not hashed


def test_done_tasks_of_a_label_have_the_definition_to_compare_with(engine: LocalEngine) -> None:
    rows = engine.store.done_by_label("corpus", 10)
    assert [row.task_id for row in rows] == ["corpus"]
    assert rows[0].definition["tags"]["kind"] == "example"
    engine.submit("g2", "other", [make_task("corpus", "exit 1", task_id="failed")], "")
    engine.run("g2")
    assert engine.store.done_by_label("corpus", 10) == rows
    assert engine.store.done_by_label("vocab", 10) == []
    assert engine.store.completed_of_kind("example", 10) == rows
    assert engine.store.completed_of_kind("other", 10) == []


def test_a_run_stands_on_tasks_of_earlier_groups(engine: LocalEngine) -> None:
    corpus, cleaned = make_task("corpus"), make_task("clean", after=(make_task("corpus"),))
    engine.submit("g2", "second", [cleaned], "")
    again = make_task("corpus", task_id="corpus-again")
    engine.submit("g3", "third", [again, make_task("vocab", after=(again, cleaned))], "")

    assert {label: row.task_id for label, row in engine.store.run_tasks("g2").items()} == {
        "clean": "clean",
        "corpus": corpus.task_id,
    }
    assert {label: row.task_id for label, row in engine.store.run_tasks("g3").items()} == {
        "vocab": "vocab",
        "corpus": "corpus-again",  # nearer to the group than the one that its input `clean` was made from
        "clean": "clean",
    }


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


def test_a_database_of_the_first_version_is_brought_up_to_date(engine: LocalEngine) -> None:
    path = engine.store.layout.database
    engine.store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP INDEX tasks_by_kind")
        for table, column in (("groups", "engine"), ("groups", "url"), ("tasks", "job")):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        connection.execute("PRAGMA user_version = 1")
    store = Store(path.parent)
    assert [row.label for row in store.completed_of_kind("example", 1)] == ["corpus"]
    with sqlite3.connect(path) as connection:
        indexes = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    assert "tasks_by_kind" in indexes
    assert [group.engine for group in store.groups()] == ["local"]


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
