"""What is done with a student at the end: 8-bit fine-tuning, every engine's export, the shortlist, publishing."""

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy_run import artifacts_of, limbeck

from pipeline.common.errors import TransientError, UserError
from pipeline.model.browser_engine import engine_folder


@functools.cache
def has_engine() -> bool:
    try:
        engine_folder()
    except (UserError, TransientError):
        return False  # without Node.js, or where npm's registry cannot be reached
    return shutil.which("node") is not None


SSRU = {"transformer-decoder-autoreg": "rnn", "dec-cell": "ssru", "after": "200u"}


@pytest.fixture(scope="module")
def published(finished_run: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of a student with a recurrent decoder on the finished run's corpus: (folder published to, runs folder)."""
    config, earlier = finished_run
    folder = tmp_path_factory.mktemp("finish")
    runs = shutil.copytree(earlier, folder / "runs")  # others look at the newest tasks of that one
    values: dict[str, Any] = yaml.safe_load(config.read_text())
    values["marian-args"]["training-student"] |= SSRU
    values["experiment"] |= {
        "quantization-target": "browser",
        "evaluation": {"speed-seconds": 0.2, "shortlist": True, "browser": has_engine()},
        "shortlist": {"first": 30, "best": 20},
    }
    values["upload-artifacts"] = {"url": f"{folder / 'models'}/", "artifacts": ["export", "browser", "report", "vocab"]}
    (folder / "finish.yml").write_text(yaml.safe_dump(values))
    limbeck("train", folder / "finish.yml", "--runs", runs, "--yes")
    return folder / "models" / "en-de" / "toy", runs


def test_every_form_of_the_student_is_in_the_report(published: tuple[Path, Path]) -> None:
    folder, _ = published
    report = json.loads((folder / "report.json").read_text())
    metrics = {entry["name"]: entry for entry in report["metrics"]}
    forms = {"student", "student-finetuned"}
    if has_engine():
        forms |= {"student-browser", "student-browser-unfinetuned"}
    assert metrics.keys() == {"backward", "teacher-1", *forms}
    for name in forms:
        assert metrics[name]["chrf"]["score"] > 35, name
    assert metrics["student"]["decoding"]["shortlist"] == {"first": 30, "best": 20}
    assert report["durations"]["distillation-student-model-train"] > 0


def test_what_no_engine_computes_is_named_and_the_rest_is_there(published: tuple[Path, Path]) -> None:
    folder, runs = published
    assert not (folder / "export" / "ctranslate2").exists()
    metadata = json.loads((folder / "export" / "metadata.json").read_text())
    assert metadata["unavailable"].keys() == {"ctranslate2", "huggingface"}
    assert metadata["provenance"]["config"]["experiment"]["name"] == "toy"
    assert "SSRU" in (folder / "export" / "MODEL_CARD.md").read_text()
    browser = json.loads((folder / "browser" / "metadata.json").read_text())
    assert browser["shortlist"] == {"first": 30, "best": 20}
    done = limbeck("translate", folder / "export", artifacts_of(runs, "export-en-de") / "export" / "metadata.json")
    assert "torch" in done.stderr


def test_what_is_published_is_what_was_made(published: tuple[Path, Path]) -> None:
    folder, runs = published
    made = artifacts_of(runs, "export-browser-en-de") / "browser"
    files = [path for path in made.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert (folder / "browser" / path.relative_to(made)).read_bytes() == path.read_bytes()
    listed = json.loads((artifacts_of(runs, "upload-artifacts-en-de") / "upload.json").read_text())
    assert str(folder) in json.dumps(listed)
