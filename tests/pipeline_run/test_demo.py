"""The demo, whole: minutes of training on data from the package index. Run by `make test-slow`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from limbeck_taskgraph.catalogue import ROOT


@pytest.mark.slow
def test_the_demo_ends_with_a_student_that_translates(tmp_path: Path) -> None:
    def limbeck(*arguments: str) -> str:
        command = [sys.executable, "-m", "utils.cli", *arguments, "--runs", str(tmp_path)]
        done = subprocess.run(command, cwd=ROOT.parent, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "student-int8" in limbeck("train", "configs/demo-en-de.yml", "--yes")
    report = Path(limbeck("artifacts", "report-en-de", "--folder").strip(), "report.json")
    chrf = {metrics["name"]: metrics["chrf"]["score"] for metrics in json.loads(report.read_text())["metrics"]}
    assert chrf["teacher-1"] > 33
    assert chrf["student"] > 31
    assert chrf["student-int8"] > 30
    assert "0 to run" in limbeck("train", "configs/demo-en-de.yml", "--yes")
