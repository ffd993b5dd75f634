"""A folder with a small finished run, and the commands as a person types them, in the test's own process."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck_engines.store import Store
from utils.cli import main


def small_config(folder: Path) -> dict[str, Any]:
    """A config whose run ends with the vocabulary."""
    return {
        "experiment": {
            "name": "small",
            "src": "en",
            "trg": "de",
            "spm-vocab-size": 400,
            "cleaning": {"default": {"language": False}},
        },
        "datasets": {"train": [f"file_{folder}/train.[LANG].zst"], "devtest": [f"file_{folder}/dev.[LANG].zst"]},
        "target-stage": "build-vocab",
    }


@dataclass
class Said:
    code: int
    out: str
    err: str


@dataclass
class Workplace:
    """A folder with a config and a runs folder of its own."""

    folder: Path
    config: dict[str, Any]
    capture: pytest.CaptureFixture[str]

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def store(self) -> Store:
        return Store(self.runs)

    @property
    def group(self) -> str:
        """Id of the newest run."""
        return self.store.groups()[0].group_id

    def task(self, label: str) -> str:
        """Id of the newest finished task of a label."""
        return self.store.done_by_label(label, 1)[0].task_id

    def write(self, name: str = "config.yml", **changes: Any) -> Path:
        """A config file with some keys changed; those of `experiment` are merged in."""
        values = {**self.config, **{key.replace("_", "-"): value for key, value in changes.items()}}
        values["experiment"] = {**self.config["experiment"], **changes.get("experiment", {})}
        (self.folder / name).write_text(yaml.safe_dump(values))
        return self.folder / name

    def limbeck(self, *words: str | Path) -> Said:
        self.capture.readouterr()
        code = main([*map(str, words), "--runs", str(self.runs)])
        return Said(code, *self.capture.readouterr())
