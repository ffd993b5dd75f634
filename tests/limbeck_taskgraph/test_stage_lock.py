"""Versions and sources stay together."""

import shutil
from pathlib import Path

import pytest

from limbeck_taskgraph.catalogue import ROOT
from limbeck_taskgraph.stage_lock import current_lock, read_lock, unexplained_changes


def test_the_committed_lock_is_up_to_date() -> None:
    locked, current = read_lock(), current_lock()
    assert not unexplained_changes(locked, current), (
        "sources changed: raise the stage's version, or run python -m utils.stage_lock --changes-no-result"
    )
    assert locked == current, "run python -m utils.stage_lock"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("taskcluster", "pipeline"):
        shutil.copytree(ROOT.parent / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_a_comment_changes_nothing_and_code_changes_the_stages_that_import_it(project: Path) -> None:
    before = current_lock(project)
    file = project / "pipeline/common/words.py"
    file.write_text(file.read_text() + "\n# a comment\n")
    assert current_lock(project) == before
    file.write_text(file.read_text() + "\nEXTRA = 1\n")
    changed = unexplained_changes(before, current_lock(project))
    assert "corpus-align-parallel" in changed
    assert "distillation-mono-src-chunk" not in changed


def test_a_raised_version_explains_the_change(project: Path) -> None:
    before = current_lock(project)
    file = project / "pipeline/align/align.py"
    file.write_text(file.read_text() + "\nEXTRA = 1\n")
    kind = project / "taskcluster/kinds/corpus-align-parallel/kind.yml"
    kind.write_text(kind.read_text().replace("version: 1", "version: 2"))
    changed = unexplained_changes(before, current_lock(project))
    assert "corpus-align-parallel" not in changed
    assert "corpus-align-distillation" in changed
