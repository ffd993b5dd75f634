"""What a person asks of finished runs: their list, their artifacts, and how a config differs from them."""

import json
import re
from pathlib import Path

import pytest
from workplace import Workplace

from pipeline.common.files import count_lines

VOCAB = "build-vocab-en-de"
MERGE = "corpus-merge-parallel-en-de"


def test_runs_are_listed_newest_first_with_their_configs(workplace: Workplace) -> None:
    first = workplace.group
    config = workplace.write("second.yml", experiment={"name": "second", "spm-vocab-size": 408})
    workplace.limbeck("train", config, "--yes")
    second = workplace.group
    newest, oldest = workplace.limbeck("runs").out.splitlines()
    assert re.fullmatch(
        rf"{second}  \d{{4}}-\d\d-\d\d \d\d:\d\d  second  completed  1 of 1 tasks done  [\d.]+ s  {config}", newest
    )
    assert oldest.startswith(first) and "  small  completed  " in oldest

    one = workplace.limbeck("runs", second[:7]).out
    assert "tasks:   1 completed" in one
    trigger = json.loads(re.search(r"^trigger: (.*)$", one, re.MULTILINE)[1])  # type: ignore[index]
    assert trigger["group"] == second and trigger["flags"][1:2] == ["--yes"]
    assert "config:\n" in one and "    spm-vocab-size: 408\n" in one
    assert workplace.limbeck("runs", "nowhere").code == 2


def test_a_run_before_its_trigger_was_logged_is_listed_too(workplace: Workplace) -> None:
    (workplace.runs / "triggers.jsonl").write_text('{"group": "torn')
    done = workplace.limbeck("runs")
    assert done.code == 0 and workplace.group in done.out


@pytest.mark.parametrize("command", [["runs"], ["artifacts"], ["diff", "config.yml"]])
def test_where_nothing_has_run_nothing_is_made(
    command: list[str], tmp_path: Path, workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace.write().parent)
    elsewhere = Workplace(tmp_path / "elsewhere", {}, workplace.capture)
    done = elsewhere.limbeck(*command)
    assert "nothing has run in" in done.out + done.err
    assert not elsewhere.folder.exists()


def test_artifacts_of_a_run_have_sizes_and_lines(workplace: Workplace) -> None:
    out = workplace.limbeck("artifacts").out
    assert workplace.limbeck("artifacts", workplace.group[:5]).out == out
    lines = count_lines(next((workplace.runs / "task" / workplace.task(MERGE)).rglob("corpus.en.zst")))
    assert re.search(rf"^{MERGE} \(.*\n(  .*\n)*  +[\d,]+  corpus\.en\.zst  {lines} lines$", out, re.MULTILINE)
    assert re.search(r"^  +[\d,]+  vocab\.en\.spm$", out, re.MULTILINE)
    of_stage = workplace.limbeck("artifacts", "--stage", "build-vocab").out
    assert of_stage.startswith(VOCAB) and MERGE not in of_stage
    assert workplace.limbeck("artifacts", VOCAB).out == of_stage
    assert workplace.limbeck("artifacts", workplace.task(VOCAB)).out == of_stage
    done = workplace.limbeck("artifacts", "--stage", "build-vocabs")
    assert done.code == 2 and "did you mean build-vocab?" in done.err
    assert workplace.limbeck("artifacts", "build-vocab").code == 2


def test_a_run_stands_on_what_it_reused(workplace: Workplace) -> None:
    workplace.limbeck("train", workplace.write(experiment={"spm-vocab-size": 408}), "--yes")
    out = workplace.limbeck("artifacts").out
    assert f"{VOCAB} (" in out and f"{MERGE} (" in out


def test_the_folder_of_one_task(workplace: Workplace) -> None:
    folder = Path(workplace.limbeck("artifacts", VOCAB, "--folder").out.strip())
    assert (folder / "vocab.en.spm").is_file()
    assert workplace.limbeck("artifacts", "--folder").code == 2


def test_a_download_is_whole_and_skips_what_is_there(workplace: Workplace) -> None:
    to = workplace.folder / "copy"
    words = ["artifacts", workplace.group, "--stage", "corpus-merge-parallel", "--download", to]
    assert re.search(r"corpus\.en\.zst  \d+ lines  copied", workplace.limbeck(*words).out)
    copy = to / MERGE / "corpus.en.zst"
    assert count_lines(copy) == count_lines(to / MERGE / "corpus.de.zst") > 100
    copy.write_bytes(b"half")
    out = workplace.limbeck(*words).out
    assert re.search(r"corpus\.en\.zst .* copied", out) and re.search(r"corpus\.de\.zst .* is there", out)
    assert count_lines(copy) > 100


def test_a_damaged_artifact_is_not_downloaded(workplace: Workplace) -> None:
    source = next((workplace.runs / "task" / workplace.task(VOCAB)).rglob("vocab.en.spm"))
    source.chmod(0o644)
    source.write_bytes(source.read_bytes()[:-1] + b"x")
    to = workplace.folder / "copy"
    done = workplace.limbeck("artifacts", VOCAB, "--download", to)
    assert done.code == 2 and "vocab.en.spm is damaged" in done.err
    assert not list(to.rglob("*vocab.en.spm*"))


def test_two_configs_differ_in_what_follows_a_change(workplace: Workplace) -> None:
    first, second = workplace.write("a.yml"), workplace.write("b.yml", experiment={"spm-vocab-size": 408})
    done = workplace.limbeck("diff", first, second)
    assert done.code == 0
    assert f"from {first} to {second}: 1 changed, 0 added, 0 removed" in done.out
    assert re.search(rf"changed   {VOCAB}\n +(spm-)?vocab-size 400 -> 408\n", done.out)
    assert "0 changed, 0 added, 0 removed" in workplace.limbeck("diff", first, first).out
    shorter = workplace.limbeck("diff", first, second, "--target-stage", "corpus-merge-parallel").out
    assert "0 changed" in shorter


def test_added_and_removed_tasks_are_named(workplace: Workplace, small_run: Path) -> None:
    datasets = {**workplace.config["datasets"], "train": [f"file_{small_run}/dev.[LANG].zst"]}
    out = workplace.limbeck("diff", workplace.write("a.yml"), workplace.write("b.yml", datasets=datasets)).out
    assert re.search(r"added     corpus-clean-parallel-file-dev\S*-en-de", out)
    assert re.search(r"removed   corpus-clean-parallel-file-train\S*-en-de", out)
    assert re.search(rf"changed   {MERGE}\n +input \S+ now comes from corpus-clean-parallel-file-dev", out)


def test_a_config_differs_from_a_run(workplace: Workplace) -> None:
    first = workplace.group
    same, changed = workplace.write("a.yml"), workplace.write("b.yml", experiment={"spm-vocab-size": 408})
    assert "0 changed, 0 added, 0 removed" in workplace.limbeck("diff", same).out
    workplace.limbeck("train", changed, "--yes")
    assert "408 -> 400" in workplace.limbeck("diff", same).out
    assert "400 -> 408" in workplace.limbeck("diff", changed, "--run", first).out
    assert workplace.limbeck("diff", changed, same, "--run", first).code == 2
    assert workplace.limbeck("diff", changed, "--run", "nowhere").code == 2


def test_a_config_that_names_tasks_is_what_its_run_was(workplace: Workplace) -> None:
    stricter = {"cleaning": {"default": {"language": False, "max-words": 8}}}
    config = workplace.write(experiment=stricter, previous_group_ids=[workplace.group], start_task_prefix="build-vocab")
    workplace.limbeck("train", config, "--yes")
    assert "0 changed" in workplace.limbeck("diff", config).out
    unnamed = workplace.limbeck("diff", workplace.write(experiment=stricter)).out
    assert re.search(r"changed   corpus-clean-parallel-.*\n +\S+ max-words not set -> 8", unnamed)


def test_the_graph_is_marked(workplace: Workplace) -> None:
    config = workplace.write(experiment={"spm-vocab-size": 408})
    out = workplace.limbeck("graph", config).out
    assert re.search(rf"{VOCAB}  \[run\]  <- {MERGE}", out)
    assert f"{MERGE}  [reused]" in out and re.search(r"corpus-clean-parallel-\S+  \[not needed\]", out)
    tasks = json.loads(workplace.limbeck("graph", config, "--format", "json").out)
    assert tasks[VOCAB]["attributes"]["plan"] == "run" and tasks[MERGE]["attributes"]["plan"] == "reused"
    assert re.search(
        rf'"{VOCAB}" \[color="#\w+", tooltip="run"\];', workplace.limbeck("graph", config, "--format", "dot").out
    )
    mermaid = workplace.limbeck("graph", config, "--format", "mermaid").out
    name = re.search(rf'(t\d+)\["{VOCAB}"\]', mermaid)
    assert name and re.search(rf"^  class {name[1]} run$", mermaid, re.MULTILINE)
    page = workplace.limbeck("graph", config, "--format", "html").out
    assert f"<li>{VOCAB} (run):" in page and "1 task, reused" in page


def test_downloads_are_marked_without_asking_anyone(workplace: Workplace) -> None:
    uris = {side: f"http://127.0.0.1:9/{side}.zst" for side in ("src", "trg")}
    datasets = {**workplace.config["datasets"], "train": []}
    config = workplace.write(datasets=datasets, continuation={"corpora": {"parallel": uris}})
    assert "continuation-corpus-parallel-en-de  [download]" in workplace.limbeck("graph", config).out


def test_without_runs_nothing_is_marked(workplace: Workplace) -> None:
    elsewhere = Workplace(workplace.folder / "elsewhere", {}, workplace.capture)
    tasks = json.loads(elsewhere.limbeck("graph", workplace.write(), "--format", "json").out)
    assert all("plan" not in task["attributes"] for task in tasks.values())
    assert not elsewhere.folder.exists()
