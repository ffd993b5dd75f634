"""The commands' own manners: help, wrong input, drawings of the graph."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck_taskgraph.config_file import ConfigError
from utils.check_config import check_values
from utils.cli import COMMANDS


def limbeck(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "utils.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def config(make_config: Any, tmp_path: Path) -> Path:
    path = tmp_path / "config.yml"
    path.write_text(yaml.safe_dump(make_config.values()))
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = limbeck(command, "--help")
    assert done.returncode == 0
    assert "example" in done.stdout


def test_an_unknown_command_is_answered_with_the_nearest() -> None:
    done = limbeck("trian")
    assert done.returncode == 2
    assert "Did you mean train?" in done.stderr


def test_values_that_only_a_step_knows_are_checked_before_anything_runs(make_config: Any, tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text(
        yaml.safe_dump(
            make_config.values(
                experiment={"trg": "xx", "cleaning": {"default": {"max-wrds": 10}}},
                datasets={"train": ["getext_Django"], "devtest": ["opsu_Books/v1"]},
                marian_args={"training-teacher": {"lern-rate": 1}, "decoding-teacher": {"beam-sise": "4"}},
            )
        )
    )
    done = limbeck("train", path, "--runs", tmp_path / "runs", "--yes")
    assert done.returncode == 2
    for said in ("experiment.trg", "max-words", "gettext", "did you mean opus_?", "learn-rate", "beam-size"):
        assert said in done.stderr
    assert "6 errors" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_config_that_is_not_there(tmp_path: Path) -> None:
    done = limbeck("graph", tmp_path / "none.yml")
    assert done.returncode == 2
    assert "none.yml does not exist" in done.stderr
    assert "no training config given" in limbeck("graph").stderr


def test_the_graph_in_every_format(config: Path, tmp_path: Path) -> None:
    tree = limbeck("graph", config).stdout
    tasks = json.loads(limbeck("graph", config, "--format", "json").stdout)
    assert tree.startswith(f"{len(tasks)} tasks")
    assert tasks["export-en-de"]["task"]["payload"]["command"]
    dot = limbeck("graph", config, "--format", "dot").stdout
    assert '"build-vocab-en-de" -> "train-teacher-model-en-de-1";' in dot
    assert "-->" in limbeck("graph", config, "--format", "mermaid").stdout
    page = tmp_path / "graph.html"
    assert limbeck("graph", config, "--format", "html", "--output", page).returncode == 0
    text = page.read_text()
    HTMLParser().feed(text)
    drawing = text[text.index("<svg") : text.index("</svg>") + 6]
    assert len(ElementTree.fromstring(drawing).findall("rect")) == len({task["kind"] for task in tasks.values()})


def test_a_dry_run_says_what_would_run_and_runs_nothing(config: Path, tmp_path: Path) -> None:
    done = limbeck("train", config, "--runs", tmp_path / "runs", "--dry-run")
    assert done.returncode == 0
    assert "0 tasks reused" in done.stdout
    assert re.search(r"run +train-teacher-model-en-de-1 .*b-largegpu.*\n +never ran", done.stdout)
    assert "has run in" in limbeck("status", "--runs", tmp_path / "runs").stderr


def test_relative_paths_of_data_sets_are_those_of_the_person(make_config: Any, tmp_path: Path) -> None:
    values = make_config.values(
        datasets={"train": ["file_data/a.[LANG].gz"]},
        experiment={"cleaning": {"datasets": {"file_data/a.[LANG].gz": {"max-words": 7}}}},
    )
    (tmp_path / "config.yml").write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "utils.cli", "graph", "config.yml", "--format", "json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    tasks = json.loads(done.stdout)
    importing = next(task for label, task in tasks.items() if label.startswith("dataset-file-a"))
    assert f"file_{tmp_path}/data/a.[LANG].gz" in importing["task"]["payload"]["command"][0][-1]
    cleaning = next(task for label, task in tasks.items() if label.startswith("corpus-clean-parallel-file-a"))
    assert '"max-words": 7' in cleaning["task"]["payload"]["command"][0][-1]


def test_an_architecture_that_cannot_go_on_is_refused_before_anything_runs(make_config: Any) -> None:
    recurrent = {"transformer-decoder-autoreg": "rnn", "dec-cell": "ssru"}

    def problem(target: str, **sections: dict[str, Any]) -> str:
        config = make_config(
            marian_args={name.replace("_", "-"): values for name, values in sections.items()}, target_stage=target
        )
        with pytest.raises(ConfigError) as raised:
            check_values(config)
        return str(raised.value)

    assert "or another target-stage, such as export" in problem("evaluate-quantized", training_student=recurrent)
    assert "marian-args.training-backward: transformer-decoder" in problem("export", training_backward=recurrent)
    assert "dec-cell" in problem("export", training_teacher={"transformer-decoder-autoreg": "rnn"})
    assert "multiple of the number of heads" in problem("export", training_teacher={"transformer-heads": 7})
    for target in ("evaluate-student", "export", "all-pipeline"):
        check_values(make_config(marian_args={"training-student": recurrent}, target_stage=target))


@pytest.mark.parametrize(
    ("experiment", "problem"),
    [
        ({"quantization-saturation": True}, "experiment.quantization-saturation: it is of the browser's arithmetic"),
        (
            {"evaluation": {"browser": True}, "browser-export": False},
            "experiment.evaluation.browser: there is nothing to evaluate",
        ),
    ],
)
def test_settings_of_what_is_not_there_are_refused(make_config: Any, experiment: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        check_values(make_config(experiment=experiment))


def test_float16_without_a_gpu_is_refused_before_anything_runs(make_config: Any, tmp_path: Path) -> None:
    if Path("/proc/driver/nvidia/gpus").exists():
        pytest.skip("this machine has a GPU")
    values = make_config.values(marian_args={"decoding-teacher": {"fp16": True}})
    (tmp_path / "config.yml").write_text(yaml.safe_dump(values))
    done = limbeck("train", tmp_path / "config.yml", "--runs", tmp_path / "runs", "--yes")
    assert done.returncode == 2
    assert "marian-args.decoding-teacher: float16 needs a GPU" in done.stderr
    assert "has run in" in limbeck("status", "--runs", tmp_path / "runs").stderr
