"""Going on from another training's checkpoint."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.common.errors import UserError
from pipeline.model.formats import npz
from pipeline.train.train import main

from .conftest import Files, make_pairs, train_vocab, write_rows
from .test_train import arguments, records

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def earlier(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model directory of a training of 40 updates."""
    return train_earlier(files, tmp_path_factory.mktemp("earlier"), after="40u", valid_freq="20u")


@pytest.fixture(scope="module")
def good(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model directory of a training that has learnt something."""
    return train_earlier(files, tmp_path_factory.mktemp("good"), after="160u", valid_freq="160u")


def train_earlier(files: Files, folder: Path, **options: object) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        # As many threads as later: they sum in another order.
        patch.setenv("LIMBECK_CPUS", "1")
        main(arguments(files, folder, **options))
    return folder / "model"


def parameters(path: Path) -> dict[str, np.ndarray]:
    return {name: array for name, array in npz.load_arrays(path).items() if not name.startswith("special")}


def same(one: Path, other: Path) -> bool:
    left, right = parameters(one), parameters(other)
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


def test_on_the_same_data_it_is_as_if_training_had_never_ended(files: Files, earlier: Path, tmp_path: Path) -> None:
    main(arguments(files, tmp_path / "whole", after="70u", valid_freq="20u"))
    again = [*arguments(files, tmp_path / "again", after="70u", valid_freq="20u"), "--continue-from", str(earlier)]
    main(again)
    assert same(tmp_path / "whole/model/model.npz", tmp_path / "again/model/model.npz")
    assert [record["update"] for record in records(tmp_path / "again")] == [40, 60, 70]


def test_a_continued_training_is_itself_continued(files: Files, earlier: Path, tmp_path: Path) -> None:
    flags = ["--continue-from", str(earlier)]
    main([*arguments(files, tmp_path, after="50u", valid_freq="20u"), *flags])
    moved = tmp_path / "second"
    shutil.copytree(tmp_path / "checkpoints", moved / "checkpoints")
    # The folder's own checkpoint is newer than the one to continue from.
    main([*arguments(files, moved, after="60u", valid_freq="20u"), *flags])
    main(arguments(files, tmp_path / "whole", after="60u", valid_freq="20u"))
    assert same(tmp_path / "whole/model/model.npz", moved / "model/model.npz")


def test_on_other_data_the_schedule_goes_on_and_reading_begins_anew(
    files: Files, earlier: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = write_rows(make_pairs(300, seed=9), *(tmp_path / f"other.{end}" for end in ("en", "de", "aln")))
    other = Files(corpus, files.devset, files.vocabs)
    with caplog.at_level(logging.INFO):
        main([*arguments(other, tmp_path, after="60u", valid_freq="20u"), "--continue-from", str(earlier)])
    assert "its data was other data" in caplog.text
    assert f"rows of distilled is {len(make_pairs(300, seed=9))} here" in caplog.text
    found = records(tmp_path)
    assert [record["update"] for record in found] == [40, 60]
    assert found[0]["epoch"] == 0
    assert float(str(found[1]["lr"])) > 0


def test_the_best_model_is_kept_when_training_on_makes_it_worse(files: Files, good: Path, tmp_path: Path) -> None:
    flags = ["--continue-from", str(good)]
    main([*arguments(files, tmp_path, after="180u", valid_freq="10u", learn_rate="3"), *flags])
    name = "final.model.npz.best-chrf.npz"
    found = [record["chrf"] for record in records(tmp_path)]
    assert found[0] == max(found) > found[-1]  # type: ignore[type-var]
    assert same(good / name, tmp_path / "model" / name)


def test_a_limit_that_is_reached_already_is_said(
    files: Files, earlier: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        main([*arguments(files, tmp_path, after="40u"), "--continue-from", str(earlier)])
    assert "raise `after`" in caplog.text
    assert same(earlier / "model.npz", tmp_path / "model/model.npz")


def test_what_is_missing_or_damaged_is_named_and_init_offered(files: Files, earlier: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(earlier, broken)
    (broken / "optimizer.pt").unlink()
    command = [*arguments(files, tmp_path, after="60u"), "--continue-from", str(broken)]
    with pytest.raises(UserError, match=r"optimizer\.pt.*use init"):
        main(command)
    (broken / "optimizer.pt").write_bytes(b"something else")
    with pytest.raises(UserError, match=r"optimizer\.pt changed"):
        main(command)


def test_another_model_or_vocabulary_is_refused(files: Files, earlier: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="enc-depth is 2 here but 1 there"):
        main([*arguments(files, tmp_path, after="60u", enc_depth=2), "--continue-from", str(earlier)])
    vocab = train_vocab([row[0] for row in make_pairs(200, seed=5)], tmp_path / "other.spm", 60)
    other = Files(files.corpus, files.devset, (vocab, vocab))
    with pytest.raises(UserError, match="src-vocab"):
        main([*arguments(other, tmp_path, after="60u"), "--continue-from", str(earlier)])


def test_it_does_not_go_with_other_beginnings(files: Files, earlier: Path, tmp_path: Path) -> None:
    command = [*arguments(files, tmp_path), "--continue-from", str(earlier), "--init", str(earlier)]
    with pytest.raises(UserError, match="leave --init"):
        main(command)


def test_reports_read_the_log_of_a_continued_training(files: Files, earlier: Path, tmp_path: Path) -> None:
    main([*arguments(files, tmp_path, after="60u", valid_freq="20u"), "--continue-from", str(earlier)])
    first, *_ = records(tmp_path)
    assert first["chrf"] == pytest.approx(max(record["chrf"] for record in _of(earlier)), abs=0.01)


def _of(model: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (model / "train.jsonl").read_text().splitlines()]
