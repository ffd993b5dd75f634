"""Translations of another engine are scored as those of evaluate are."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.common.errors import UserError
from pipeline.common.figures import read_metrics
from pipeline.common.files import read_lines, write_json
from pipeline.evaluate.score_translations import main

SPEED = {"words-per-second": 5200.5, "threads": 1, "measured": "in a browser"}


def score(test_set: tuple[Path, Path], folder: Path, *flags: object) -> dict[str, Any]:
    sources, references = test_set
    main(
        [
            *(
                "--name",
                "student-browser",
                "--engine",
                "bergamot int8",
                "--dataset",
                "toy",
                "--src",
                "en",
                "--trg",
                "de",
            ),
            *("--references-src", str(sources), "--references-trg", str(references)),
            *("--output-prefix", str(folder / "toy"), *map(str, flags)),
        ]
    )
    metrics: dict[str, Any] = json.loads((folder / "toy.metrics.json").read_text("utf-8"))
    return metrics


def test_the_files_are_those_of_an_evaluation(test_set: tuple[Path, Path], tmp_path: Path) -> None:
    model = tmp_path / "model.bin"
    model.write_bytes(b"x" * 1234)
    write_json(tmp_path / "speed.json", SPEED)
    given = ("--translations", test_set[1], "--model", model, test_set[0], "--speed", tmp_path / "speed.json")
    metrics = score(test_set, tmp_path, *given)
    assert metrics["chrf"]["score"] == metrics["bleu"]["score"] == 100 and metrics["ter"]["score"] == 0
    assert metrics["size-bytes"] == 1234 + test_set[0].stat().st_size
    assert metrics["speed"] == {"words-per-second": 5200.5, "threads": 1}
    assert metrics["measured"]["speed"] == "in a browser" and "model.bin" in metrics["measured"]["size-bytes"]
    assert list(read_lines(tmp_path / "toy.de.zst")) == list(read_lines(test_set[1]))
    assert read_metrics(tmp_path / "toy.metrics.json") == metrics

    without = score(test_set, tmp_path, "--translations", test_set[0])
    assert without["chrf"]["score"] < 100 and "speed" not in without and "size-bytes" not in without


@pytest.mark.parametrize(
    ("speed", "said"),
    [([], "JSON object"), ({"words-per-second": 3}, "measured"), ({**SPEED, "words-per-second": True}, "found True")],
)
def test_what_is_wrong_is_said(speed: Any, said: str, test_set: tuple[Path, Path], tmp_path: Path) -> None:
    write_json(tmp_path / "speed.json", speed)
    with pytest.raises(UserError, match=said):
        score(test_set, tmp_path, "--translations", test_set[1], "--speed", tmp_path / "speed.json")
    with pytest.raises(UserError, match=r"absent\.bin does not exist"):
        score(test_set, tmp_path, "--translations", test_set[1], "--model", tmp_path / "absent.bin")
    (tmp_path / "short.de").write_text("nur eine Zeile\n", "utf-8")
    with pytest.raises(UserError, match="equal length"):
        score(test_set, tmp_path, "--translations", tmp_path / "short.de")
