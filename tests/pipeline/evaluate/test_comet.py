"""COMET: the calls that its package gets, with a stand-in for the package; no COMET model is computed here.

The stand-in has the signatures of unbabel-comet 2.2: download_model(name) -> path, load_from_checkpoint(path) -> model,
model.requires_references(), model.predict(rows, batch_size, gpus, progress_bar) -> result with system_score.
"""

import importlib.metadata
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from pipeline.common.errors import UserError
from pipeline.evaluate.comet import Comet


class Package(types.ModuleType):
    def __init__(self, references: bool = True) -> None:
        super().__init__("comet")
        self.references, self.calls = references, list[Any]()

    def download_model(self, name: str) -> str:
        self.calls.append(("download", name))
        if name == "nobody/nothing":
            raise KeyError(f"Model '{name}' not supported by COMET.")
        return "/cache/checkpoints/model.ckpt"

    def load_from_checkpoint(self, path: str) -> "Package":
        self.calls.append(("load", path))
        return self

    def requires_references(self) -> bool:
        return self.references

    def predict(self, rows: list[dict[str, str]], batch_size: int, gpus: int, progress_bar: bool) -> Any:
        self.calls.append(("predict", rows, gpus))
        return types.SimpleNamespace(scores=[0.5, 0.7], system_score=0.6)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Package:
    package = Package()
    monkeypatch.setitem(sys.modules, "comet", package)
    known = importlib.metadata.version
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.2.7" if name == "unbabel-comet" else known(name))
    return package


def test_a_model_of_the_hub_is_downloaded_and_gets_all_three_sides(package: Package) -> None:
    score = Comet("Unbabel/wmt22-comet-da").score(["a", "b"], ["c", "d"], ["e", "f"])
    assert score == {
        "score": 0.6,
        "model": "Unbabel/wmt22-comet-da",
        "signature": "model:Unbabel/wmt22-comet-da|version:2.2.7",
    }
    rows = [{"src": "a", "mt": "c", "ref": "e"}, {"src": "b", "mt": "d", "ref": "f"}]
    assert package.calls == [
        ("download", "Unbabel/wmt22-comet-da"),
        ("load", "/cache/checkpoints/model.ckpt"),
        ("predict", rows, 0),
    ]


def test_a_folder_is_not_downloaded_and_references_go_where_they_are_wanted(package: Package, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoints" / "model.ckpt"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    package.references = False
    for given in (tmp_path, checkpoint):
        package.calls.clear()
        Comet(str(given)).score(["a"], ["c"], ["e"])
        assert package.calls == [("load", str(checkpoint)), ("predict", [{"src": "a", "mt": "c"}], 0)]


def test_what_is_missing_is_said(package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no checkpoints/model\.ckpt"):
        Comet(str(tmp_path))
    with pytest.raises(UserError, match="does not exist"):
        Comet(str(tmp_path / "absent.ckpt"))
    with pytest.raises(UserError, match=r"nobody/nothing cannot be loaded.*not supported"):
        Comet("nobody/nothing").score(["a"], ["b"], ["c"])
    monkeypatch.setitem(sys.modules, "comet", None)  # as where it is not installed
    with pytest.raises(UserError, match=r"limbeck\[comet\]"):
        Comet("Unbabel/wmt22-comet-da")
