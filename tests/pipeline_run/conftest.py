"""A finished run, which several tests look at and continue from."""

from pathlib import Path

import pytest
import yaml
from toy_language import write_toy_corpora
from toy_run import limbeck, toy_config


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora")
    write_toy_corpora(folder)
    return folder


@pytest.fixture(scope="session")
def finished_run(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished run with mono: (config, runs folder)."""
    folder = tmp_path_factory.mktemp("run")
    config = folder / "toy.yml"
    config.write_text(yaml.safe_dump(toy_config(corpora, 600, mono=True)))
    limbeck("train", config, "--runs", folder / "runs", "--yes")
    return config, folder / "runs"
