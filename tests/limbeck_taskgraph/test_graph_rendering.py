"""Configs -> graphs: what is there, what it reads, and that nothing dangles."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck_taskgraph.catalogue import ROOT, load_catalogue
from limbeck_taskgraph.config_file import load_training_config
from limbeck_taskgraph.generate import generate_graph
from limbeck_taskgraph.target_tasks import UnknownStage

PROJECT = ROOT.parent
MONO = {"mono-src": ["file_/data/mono.[LANG].zst"], "mono-trg": ["file_/data/mono.[LANG].zst"]}


def labels(config: Any) -> set[str]:
    return set(generate_graph(config).tasks)


def kinds(config: Any) -> set[str]:
    return {task.kind for task in generate_graph(config)}


def test_without_mono_the_graph_needs_no_backward_model(make_config: Any) -> None:
    assert kinds(make_config()) == {
        "dataset", "corpus-clean-parallel", "corpus-merge-parallel", "corpus-merge-devset", "build-vocab",
        "corpus-align-parallel", "train-teacher-model", "distillation-parallel-src-chunk",
        "distillation-parallel-src-translate", "distillation-parallel-src-extract-best",
        "distillation-parallel-src-dechunk-translations", "corpus-merge-distillation", "corpus-align-distillation",
        "distillation-corpus-build-shortlist", "distillation-student-model-train",
        "distillation-student-model-quantize", "evaluate", "evaluate-significance", "export", "export-browser",
        "report", "all-pipeline",
    }  # fmt: skip


def test_with_mono_every_kind_is_there(make_config: Any) -> None:
    every = {path.name for path in (ROOT / "kinds").iterdir() if not path.name.startswith("continuation-")}
    asked_for = {
        "distillation-teacher-distributions",
        "distillation-student-model-finetune",
        "evaluate-browser",
        "upload-artifacts",
    }
    assert kinds(make_config(datasets=MONO)) == every - asked_for
    experiment = {
        "distillation": {"recipe": "hybrid", "top-k": 8},
        "quantization-target": "ctranslate2",
        "evaluation": {"browser": True},
    }
    assert kinds(make_config(datasets=MONO, experiment=experiment, upload_artifacts={"url": "s3://bucket"})) == every


def test_a_filter_fraction_asks_for_a_backward_model(make_config: Any) -> None:
    found = kinds(make_config(experiment={"distillation-filter-fraction": 0.1}))
    assert {"backtranslations-train-backwards-model", "distillation-corpus-final-filtering"} <= found
    none = kinds(make_config(experiment={"distillation-filter-fraction": 0}, datasets=MONO))
    assert "distillation-corpus-final-filtering" not in none
    assert "backtranslations-train-backwards-model" in none


def test_a_fine_tuned_student_is_what_is_quantized_and_exported(make_config: Any) -> None:
    plain = generate_graph(make_config())
    graph = generate_graph(make_config(experiment={"quantization-target": "browser"}))
    finetune = "distillation-student-model-finetune-en-de"
    for label in ("distillation-student-model-quantize-en-de", "export-en-de"):
        assert "distillation-student-model-train-en-de" in plain.tasks[label].dependencies.values()
        assert finetune in graph.tasks[label].dependencies.values()
    assert "evaluate-finetuned-student-gettext-test-en-de" in graph.tasks
    assert "--quantization browser" in graph.tasks[finetune].task["payload"]["command"][0][-1]
    train = "distillation-student-model-train-en-de"
    assert graph.tasks[train].attributes["digest"] == plain.tasks[train].attributes["digest"]


def test_an_ssru_student_is_exported_for_the_engines_that_have_one(make_config: Any) -> None:
    graph = generate_graph(make_config(marian_args={"training-student": {"transformer-decoder-autoreg": "rnn"}}))
    found = {task.kind for task in graph}
    assert {"export", "export-browser", "report"} <= found
    assert "distillation-student-model-quantize" not in found
    assert not any(label.startswith("evaluate-quantized") for label in graph.tasks)
    assert "--quantized" not in graph.tasks["export-en-de"].task["payload"]["command"][0][-1]


def test_the_browsers_engine_is_evaluated_where_asked_for(make_config: Any) -> None:
    graph = generate_graph(make_config(experiment={"evaluation": {"browser": True}}))
    label = "evaluate-browser-gettext-test-en-de"
    assert "export-browser-en-de" in graph.tasks[label].dependencies.values()
    for reader in ("report-en-de", "evaluate-significance-gettext-test-en-de"):
        assert label in graph.tasks[reader].dependencies.values()
    assert label not in generate_graph(make_config()).tasks


def test_students_are_evaluated_with_the_shortlist_where_asked_for(make_config: Any) -> None:
    wanted = {"shortlist": {"first": 20, "best": 30}, "evaluation": {"shortlist": True}}
    graph, plain = generate_graph(make_config(experiment=wanted)), generate_graph(make_config())
    for label in ("evaluate-student-gettext-test-en-de", "evaluate-quantized-gettext-test-en-de"):
        command = graph.tasks[label].task["payload"]["command"][0][-1]
        assert "lex.s2t.pruned.zst" in command
        assert "--shortlist-first 20 --shortlist-best 30" in command
        assert "shortlist" not in plain.tasks[label].task["payload"]["command"][0][-1]
    teacher = "evaluate-teacher-gettext-test-en-de-1"
    assert graph.tasks[teacher].attributes["digest"] == plain.tasks[teacher].attributes["digest"]


@pytest.mark.parametrize(
    ("target", "evaluation"),
    [("ctranslate2", "evaluate-quantized"), ("browser", "evaluate-browser")],
)
def test_what_fine_tuning_gained_is_told_by_the_student_without_it(
    make_config: Any, target: str, evaluation: str
) -> None:
    graph = generate_graph(make_config(experiment={"quantization-target": target, "evaluation": {"browser": True}}))
    without = graph.tasks[f"{evaluation}-unfinetuned-gettext-test-en-de"]
    assert without.label in graph.tasks["evaluate-significance-gettext-test-en-de"].dependencies.values()
    made = graph.tasks[next(label for label in without.dependencies.values() if "unfinetuned" in label)]
    assert "distillation-student-model-train-en-de" in made.dependencies.values()
    assert "distillation-student-model-finetune-en-de" not in made.dependencies.values()


def test_what_is_asked_for_is_published(make_config: Any) -> None:
    wanted = {"url": "s3://models/", "artifacts": ["export", "report", "vocab", "teacher"]}
    graph = generate_graph(
        make_config(upload_artifacts=wanted, experiment={"teacher-ensemble": 2, "archive-corpora": True})
    )
    command = graph.tasks["upload-artifacts-en-de"].task["payload"]["command"][0][-1]
    words = shlex.split(command)
    names = [words[index + 1] for index, word in enumerate(words) if word == "--artifact"]
    corpora = [
        f"corpora/{corpus}/corpus.{side}.zst" for corpus in ("parallel", "distillation") for side in ("en", "de")
    ]
    vocabs = [f"vocab/vocab.{side}.spm" for side in ("en", "de")]
    teachers = ["teacher-1/model.npz", "teacher-2/model.npz"]
    assert sorted(names) == sorted(["export", "report.html", "report.json", *vocabs, *teachers, *corpora])
    assert words[words.index("--url") + 1] == "s3://models/en-de/test"
    assert "upload-artifacts-en-de" in graph.tasks["all-pipeline-en-de"].dependencies.values()
    assert "upload-artifacts-en-de" not in generate_graph(make_config()).tasks


def test_labels_are_the_fields(make_config: Any) -> None:
    found = labels(make_config(datasets=MONO, experiment={"teacher-ensemble": 2}))
    for label in [
        "dataset-gettext-one-en-de",
        "corpus-clean-parallel-gettext-one-en-de",
        "corpus-merge-mono-src-en",
        "corpus-merge-mono-trg-de",
        "train-teacher-model-en-de-1",
        "train-teacher-model-en-de-2",
        "backtranslations-mono-trg-translate-en-de-3/3",
        "distillation-parallel-src-extract-best-en-de-1/3",
        "evaluate-teacher-ensemble-gettext-test-en-de",
        "evaluate-teacher-gettext-test-en-de-2",
        "evaluate-quantized-gettext-test-en-de",
        "export-en-de",
    ]:
        assert label in found
    assert "evaluate-teacher-ensemble-gettext-test-en-de" not in labels(make_config(datasets=MONO))


def test_each_chunk_reads_its_own_chunk_and_every_teacher(make_config: Any) -> None:
    graph = generate_graph(make_config(experiment={"teacher-ensemble": 2}))
    task = graph.tasks["distillation-parallel-src-translate-en-de-2/3"]
    fetched = {(f["dest"], f["artifact"]) for f in fetches(task)}
    assert ("distillation-parallel-src-chunk-en-de", "public/build/file.2.zst") in fetched
    teachers = {dest for dest, _ in fetched if dest.startswith("train-teacher")}
    assert teachers == {"train-teacher-model-en-de-1", "train-teacher-model-en-de-2"}
    command = task.task["payload"]["command"][0][-1]
    assert command.count("--model ") == 2
    dechunk = graph.tasks["distillation-parallel-src-dechunk-translations-en-de"]
    chunks = re.findall(r"file\.(\d)\.nbest\.out\.zst", dechunk.task["payload"]["command"][0][-1])
    assert chunks == ["1", "2", "3"]


def test_every_file_that_a_command_reads_is_fetched_and_every_fetch_is_made(make_config: Any) -> None:
    graph = generate_graph(make_config(datasets=MONO, experiment={"teacher-ensemble": 2}))
    for task in graph:
        if not task.task["payload"]:
            continue
        command = task.task["payload"]["command"][0][-1]
        read = {path.rstrip("'") for path in re.findall(r'"\$MOZ_FETCHES_DIR"/(\S+)', command)}
        assert read <= {f"{f['dest']}/{f['artifact'].removeprefix('public/build/')}" for f in fetches(task)}, task.label
        assert {f["dest"] for f in fetches(task)} == set(task.dependencies.values())
        assert "None" not in command
        assert "{" not in re.sub(r"'[^']*'", "", command), command


def fetches(task: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(task.task["payload"]["env"]["MOZ_FETCHES"]["task-reference"])
    return found


def test_every_flag_of_every_command_is_known_to_its_step(make_config: Any) -> None:
    graph = generate_graph(make_config(datasets=MONO, experiment={"cleaning": {"default": {"max-words": 100}}}))
    by_module: dict[str, set[str]] = {}
    for task in graph:
        if task.task["payload"]:
            words = task.task["payload"]["command"][0][-1].split()
            by_module.setdefault(words[3], set()).update(word for word in words if word.startswith("--"))
    for module, flags in by_module.items():
        text = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True)
        known = set(re.findall(r"--[a-z0-9-]+", text.stdout))
        assert flags <= known, f"{module}: {flags - known}"


def test_digests_follow_meaning_only(make_config: Any) -> None:
    def digests(**sections: Any) -> dict[str, str]:
        return {task.label: task.attributes["digest"] for task in generate_graph(make_config(**sections))}

    same = digests()
    assert same == digests(experiment={"name": "another-name"}) | {
        label: same[label] for label in same if label.startswith(("report", "all-pipeline"))
    }
    other = digests(experiment={"trg": "fr"})
    assert not set(same.values()) & set(other.values())
    chunks = [digest for label, digest in same.items() if "-translate-" in label]
    assert len(set(chunks)) == 3


def test_a_changed_file_of_the_users_is_imported_again_but_not_a_touched_one(make_config: Any, tmp_path: Path) -> None:
    def digest() -> str:
        graph = generate_graph(make_config(datasets={"train": [f"file_{tmp_path}/a.[LANG].gz"]}))
        found: str = graph.tasks["corpus-merge-parallel-en-de"].attributes["digest"]
        return found

    for lang in ("en", "de"):
        (tmp_path / f"a.{lang}.gz").write_bytes(b"text")
    before = digest()
    (tmp_path / "a.de.gz").touch()
    assert digest() == before
    (tmp_path / "a.de.gz").write_bytes(b"next")
    assert digest() != before


def test_target_stage_limits_the_graph(make_config: Any) -> None:
    found = labels(make_config(target_stage="build-vocab"))
    assert "build-vocab-en-de" in found
    assert not any("train" in label for label in found)
    assert "evaluate-teacher-gettext-test-en-de-1" in labels(make_config(target_stage="evaluate-teacher"))
    assert "backtranslations-train-backwards-model-en-de" in labels(
        make_config(target_stage="backtranslations-train-backwards-model")
    )
    with pytest.raises(UnknownStage, match="found 'nonsense'; stages of this config: all-pipeline"):
        labels(make_config(target_stage="nonsense"))


def test_a_data_set_of_several_uses_is_imported_once(make_config: Any) -> None:
    found = labels(make_config(datasets={"devtest": ["gettext_test"]}))
    assert len([label for label in found if label.startswith("dataset-gettext-test")]) == 1


def test_without_test_sets_there_is_no_evaluation_but_a_report(make_config: Any) -> None:
    found = kinds(make_config(datasets={"test": []}))
    assert "evaluate" not in found
    assert {"report", "export"} <= found


def test_rendering_is_deterministic(make_config: Any) -> None:
    config = make_config(datasets=MONO)
    assert generate_graph(config).to_json() == generate_graph(config).to_json()


def test_digests_and_commands_are_the_same_in_every_process(make_config: Any, tmp_path: Path) -> None:
    config = tmp_path / "config.yml"
    config.write_text(yaml.safe_dump(make_config.values(datasets=MONO, experiment={"teacher-ensemble": 2})))
    command = [sys.executable, "-m", "utils.graph", "--config", str(config), "--format", "json"]
    rendered = []
    for seed in range(8):
        done = subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": str(seed)}, capture_output=True, text=True, check=True
        )
        rendered.append(json.loads(done.stdout))
    assert all(graph == rendered[0] for graph in rendered)


CONFIGS = [path for path in sorted((PROJECT / "configs").rglob("*.yml")) if path.parent.name != "engines"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_example_config_renders(path: Path) -> None:
    assert generate_graph(load_training_config(path)).tasks


def test_the_catalogue_names_kinds_that_exist() -> None:
    for artifact_type in load_catalogue().values():
        for kind in artifact_type.made_by:
            assert (ROOT / "kinds" / kind / "kind.yml").is_file(), f"{artifact_type.name}: {kind}"


def test_it_renders_from_a_folder_without_git(tmp_path: Path) -> None:
    for name in ("taskcluster", "pipeline", "utils", "configs"):
        shutil.copytree(PROJECT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    config = next(iter(sorted((tmp_path / "configs").glob("*.yml"))))
    done = subprocess.run(
        [sys.executable, "-m", "utils.graph", "--config", str(config), "--format", "json"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{tmp_path}:{tmp_path / 'taskcluster'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    task = next(iter(json.loads(done.stdout).values()))
    assert {"label", "kind", "task", "dependencies", "attributes"} <= task.keys()
    assert str(tmp_path) in task["task"]["metadata"]["source"]
