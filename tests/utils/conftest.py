"""A small finished run for the tests of commands."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from toy_language import write_toy_corpora
from workplace import Workplace, small_config

from utils.cli import main


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with corpora and the finished run of their config."""
    folder = tmp_path_factory.mktemp("small")
    write_toy_corpora(folder, train=300, held_out=20, mono=1)
    config = folder / "config.yml"
    config.write_text(yaml.safe_dump(small_config(folder)))
    assert main(["train", str(config), "--runs", str(folder / "runs"), "--yes"]) == 0
    return folder


@pytest.fixture
def workplace(small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Workplace:
    """A copy of the finished run, to do with what one likes."""
    shutil.copytree(small_run / "runs", tmp_path / "runs")
    return Workplace(tmp_path, small_config(small_run), capsys)


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sit at a terminal and give these answers."""

    def sit_down(*answers: str) -> None:
        left = list(answers)
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("builtins.input", lambda question: (print(question), left.pop(0))[1])

    return sit_down
