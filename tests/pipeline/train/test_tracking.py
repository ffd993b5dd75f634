"""Curves on Weights & Biases, written offline."""

import sys
from pathlib import Path

import pytest

from pipeline.common.errors import UserError
from pipeline.train.train import main

from .conftest import Files
from .test_train import arguments

pytestmark = pytest.mark.usefixtures("one_thread")


def test_curves_are_written_offline_and_a_continued_training_continues_its_run(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("LIMBECK_WANDB_PROJECT", "en-de")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    main(arguments(files, tmp_path, after="2u"))
    main(arguments(files, tmp_path, after="4u"))
    runs = sorted((tmp_path / "checkpoints" / "wandb").glob("offline-run-*"))
    assert len(runs) == 2
    assert len({run.name.rpartition("-")[2] for run in runs}) == 1
    written = b"".join(path.read_bytes() for run in runs for path in run.glob("*.wandb"))
    for name in (b"valid/chrf", b"train/train-cost", b"train/mfu", b"dim-emb"):
        assert name in written


def test_publishing_without_the_package_says_what_to_install(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setenv("LIMBECK_WANDB_PROJECT", "en-de")
    with pytest.raises(UserError, match=r"needs the wandb package: pip install 'limbeck\[tracking\]'"):
        main(arguments(files, tmp_path, after="2u"))
