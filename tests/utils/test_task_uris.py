"""Tasks of the runs folder as sources of a continuation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from workplace import Workplace

from limbeck_taskgraph.config_file import parse_training_config
from pipeline.common.errors import UserError
from utils.task_uris import with_local_tasks

VOCAB = "build-vocab-en-de"
UNKNOWN = "VfLPTQDlRJCdpHRkpkQ2mA"


def resolve(workplace: Workplace, uri: str, with_store: bool = True) -> str:
    values = {**workplace.config, "continuation": {"vocab": {"src": uri, "trg": "vocab.spm"}}}
    config = parse_training_config(yaml.safe_dump(values))
    resolved = with_local_tasks(config, workplace.store if with_store else None).continuation
    assert resolved.vocab is not None and resolved.vocab.trg == "vocab.spm"
    return resolved.vocab.src


Spelling = Callable[[str], str]
BUILD = "artifacts/public/build"


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        (lambda task: task, ""),
        (lambda task: f"task/{task}/{BUILD}", ""),
        (lambda task: f"task/{task}/{BUILD}/", ""),
        (lambda task: f"task/{task}/{BUILD}/vocab.en.spm", "vocab.en.spm"),
        (lambda task: f"task/{task}/runs/0/{BUILD}/vocab.en.spm", "vocab.en.spm"),
        (lambda task: f"https://tc.example.org/api/queue/v1/task/{task}/{BUILD}/vocab.en.spm", "vocab.en.spm"),
        (lambda task: f"https://tc.example.org/api/queue/v1/task/{task}/runs/0/{BUILD}", ""),
    ],
)
def test_every_spelling_of_a_known_task_becomes_a_path(workplace: Workplace, spelling: Spelling, name: str) -> None:
    folder = workplace.store.run_folder(workplace.task(VOCAB))
    assert folder is not None
    assert Path(resolve(workplace, spelling(workplace.task(VOCAB)))) == folder / BUILD / name


@pytest.mark.parametrize(
    "uri",
    [
        f"https://tc.example.org/api/queue/v1/task/{UNKNOWN}/{BUILD}/vocab.en.spm",
        "https://host/task/vocab.spm",
        "models/vocab.spm",
        "s3://bucket/task/vocab.spm",
    ],
)
@pytest.mark.parametrize("with_store", [True, False])
def test_what_names_no_task_of_here_stays_as_it_is(workplace: Workplace, uri: str, with_store: bool) -> None:
    assert resolve(workplace, uri, with_store) == uri


@pytest.mark.parametrize(
    ("spelling", "said"),
    [
        (lambda task: UNKNOWN, f"continuation.vocab.src: there is no task {UNKNOWN}"),
        (lambda task: f"task/{UNKNOWN}/{BUILD}/vocab.en.spm", f"there is no task {UNKNOWN}"),
        (
            lambda task: f"task/{task}/{BUILD}/vocab.fr.spm",
            "has no artifact public/build/vocab.fr.spm; it has: public/",
        ),
        (lambda task: f"task/{task}/artifacts/../live.log", "has no artifact ../live.log"),
        (lambda task: f"task/{task}/runs/7/{BUILD}", "has no artifact public/build; it has: none"),
    ],
)
def test_tasks_and_artifacts_that_are_not_there(workplace: Workplace, spelling: Spelling, said: str) -> None:
    with pytest.raises(UserError) as raised:
        resolve(workplace, spelling(workplace.task(VOCAB)))
    assert said in str(raised.value)


def test_a_task_that_is_not_finished(workplace: Workplace) -> None:
    task = workplace.task(VOCAB)
    workplace.store.update_task(task, state="failed")
    with pytest.raises(UserError, match=rf"{VOCAB} \({task}\) is failed"):
        resolve(workplace, task)


def test_a_run_continues_from_a_task_of_an_earlier_one(workplace: Workplace) -> None:
    corpus = workplace.task("corpus-merge-parallel-en-de")
    uris = {side: f"task/{corpus}/{BUILD}/corpus.{lang}.zst" for side, lang in (("src", "en"), ("trg", "de"))}
    datasets: dict[str, Any] = {**workplace.config["datasets"], "train": []}
    config = workplace.write(
        datasets=datasets, continuation={"corpora": {"parallel": uris}}, experiment={"spm-vocab-size": 408}
    )
    done = workplace.limbeck("train", config, "--yes")
    assert done.code == 0, done.out + done.err
    labels = {row.label for row in workplace.store.tasks(workplace.group)}
    assert labels == {"continuation-corpus-parallel-en-de", VOCAB}
    assert str(workplace.runs / "task" / corpus) in done.out  # listed among what is fetched
