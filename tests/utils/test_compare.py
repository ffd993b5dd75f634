"""limbeck compare: real runs of the local engine whose tasks write given figures, and report.json files."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from engine_graphs import make_engine, make_task
from reports import INT8, STUDENT, TEACHER, Page, metrics
from workplace import Workplace

from pipeline.common.files import write_json

ENSEMBLE = metrics("teacher-ensemble", 62.0, 75.0, 480_000_000)
BETTER = metrics("student", 59.0, 6000.0, 30_000_000)


def run_that_wrote(runs: Path, group: str, files: dict[str, dict[str, Any]]) -> None:
    """A finished run: one task per file, whose label and content are given."""
    tasks = []
    for label, content in files.items():
        name = "report.json" if label.startswith("report") else "set.metrics.json"
        made = runs.parent / f"{group}-{label}.json"
        write_json(made, content)
        script = f'mkdir -p artifacts && cp "{made}" artifacts/{name}'
        tasks.append(make_task(label, script, task_id=f"{group}{label}", digest=(group + label).encode().hex()))
    engine = make_engine(runs)
    engine.submit(group, f"run-{group}", tasks, "")
    assert engine.run(group).succeeded


@pytest.fixture
def workplace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Workplace:
    """Two finished runs: one with a report, one that ended with its evaluations."""
    workplace = Workplace(tmp_path, {}, capsys)
    report = {"name": "first", "metrics": [TEACHER, STUDENT, INT8]}
    run_that_wrote(workplace.runs, "AAAA", {"report-en-de": report, "evaluate-student-toy-en-de": STUDENT})
    evaluations = {"evaluate-teacher-ensemble-toy-en-de": ENSEMBLE, "evaluate-student-toy-en-de": BETTER}
    run_that_wrote(workplace.runs, "BBBB", evaluations)
    return workplace


def figures(content: dict[str, Any]) -> dict[tuple[str, str], tuple[list[float | None], list[float | None]]]:
    return {(row["model"], row["figure"]): (row["values"], row["differences"]) for row in content["figures"]}


def test_models_are_compared_by_what_they_are(workplace: Workplace) -> None:
    done = workplace.limbeck("compare", "AAAA", "BB", "--json")
    assert done.code == 0, done.err
    content = json.loads(done.out)
    assert content["runs"] == ["AAAA run-AAAA", "BBBB run-BBBB"]
    found = figures(content)
    assert found["teacher", "chrf"] == ([60.0, 62.0], [None, 2.0])  # a single teacher, and an ensemble
    assert found["student", "chrf"] == ([58.5, 59.0], [None, 0.5])
    assert found["student", "words-per-second"] == ([3000.0, 6000.0], [None, 2.0])
    assert found["student", "size-mb"] == ([60.0, 30.0], [None, 0.5])
    assert found["quantized", "chrf"] == ([58.3, None], [None, None])
    assert ("student", "ter") not in found  # not measured anywhere
    assert content["notes"] == []


def test_the_table_for_a_terminal(workplace: Workplace) -> None:
    lines = workplace.limbeck("compare", "AAAA", "BBBB").out.splitlines()
    assert re.split(r"  +", lines[0]) == ["test set", "model", "figure", "AAAA run-AAAA", "BBBB run-BBBB"]
    assert re.split(r"  +", lines[1]) == ["gettext_toy en-de", "teacher", "chrF", "60.0", "62.0", "+2.0"]
    models = [line[len("gettext_toy en-de") :].split()[0] for line in lines[1:]]
    figures = ["BLEU", "words/s", "size"]
    assert models == ["teacher", *figures, "student", *figures, "quantized", *figures]
    assert re.split(r"  +", lines[7].strip()) == ["words/s", "3,000", "6,000", "×2.00"]
    assert re.split(r"  +", lines[9].strip()) == ["quantized", "chrF", "58.3", "-"]


def test_reports_of_elsewhere_and_other_test_sets(workplace: Workplace) -> None:
    elsewhere = workplace.folder / "elsewhere.json"
    other = [
        {**STUDENT, "dataset": "flores_devtest"},
        {**STUDENT, "sentences": 12, "speed": {"processor": "Other CPU"}},
    ]
    write_json(elsewhere, {"name": "old", "metrics": other})
    done = workplace.limbeck("compare", "AAAA", elsewhere, "--json")
    content = json.loads(done.out)
    assert content["runs"][1] == str(elsewhere)
    assert {(row["dataset"], row["model"]) for row in content["figures"]} >= {("flores_devtest", "student")}
    notes = " | ".join(content["notes"])
    assert f"the number of sentences of gettext_toy en-de differs: 500 (AAAA run-AAAA); 12 ({elsewhere})" in notes
    assert "Toy CPU (AAAA run-AAAA); Other CPU" in notes
    assert "note: the number of sentences" in workplace.limbeck("compare", "AAAA", elsewhere).out


def test_augmented_text_stands_under_its_plain_set(workplace: Workplace) -> None:
    def report(name: str, plain: float, upper: float) -> Path:
        pairs = (("flores_devtest", plain), ("flores_aug-upper_devtest", upper))
        write_json(
            workplace.folder / name,
            {"metrics": [{**metrics("student", *pair[1:], 1, 1), "dataset": pair[0]} for pair in pairs]},
        )
        return workplace.folder / name

    done = workplace.limbeck("compare", report("a.json", 50.0, 30.0), report("b.json", 51.0, 44.5), "--json")
    found = figures(json.loads(done.out))
    assert found["student", "chrf"] == ([50.0, 51.0], [None, 1.0])
    assert found["student", "chrf-upper"] == ([30.0, 44.5], [None, 14.5])


def test_a_page_that_needs_nothing_else(workplace: Workplace) -> None:
    path = workplace.folder / "compared.html"
    assert workplace.limbeck("compare", "AAAA", "BBBB", "--html", path).code == 0
    page = Page(path.read_text("utf-8"))
    assert page.links == [] and page.tags.count("table") == 1
    assert "×2.00" in page.text and "BBBB run-BBBB" in page.text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["AAAA"], "at least two runs"),
        (["AAAA", "CCCC"], "begins with CCCC"),
        (["AAAA", "absent.json"], "absent.json does not exist"),
        (["AAAA", "EMPTY"], "no model was evaluated in run EMPTY"),
        (["AAAA", "{folder}/config.json"], "is no report.json"),
        (["AAAA", "{folder}/none.json"], "has no figures"),
        (["AAAA", "{folder}/text.json"], "must be numbers"),
    ],
)
def test_what_cannot_be_compared(workplace: Workplace, words: list[str], said: str) -> None:
    run_that_wrote(workplace.runs, "EMPTY", {"build-vocab-en-de": {}})
    wrong = {**STUDENT, "chrf": {"score": "high"}}
    for name, content in (("config", [1]), ("none", {"metrics": []}), ("text", {"metrics": [wrong]})):
        write_json(workplace.folder / f"{name}.json", content)
    done = workplace.limbeck("compare", *(word.format(folder=workplace.folder) for word in words))
    assert done.code == 2 and said in done.err and done.err.startswith("error: ")


def test_reports_are_compared_where_nothing_has_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workplace = Workplace(tmp_path, {}, capsys)
    for name, entry in (("a", STUDENT), ("b", BETTER)):
        write_json(tmp_path / f"{name}.json", {"metrics": [entry]})
    assert workplace.limbeck("compare", tmp_path / "a.json", tmp_path / "b.json").code == 0
    assert "nothing has run in" in workplace.limbeck("compare", "AAAA", "BBBB").err
    assert not workplace.runs.exists()


def test_a_student_without_fine_tuning_stands_before_the_one_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workplace = Workplace(tmp_path, {}, capsys)
    without = metrics("student-int8-unfinetuned", 50.0, 9000.0, 2000)
    for name in ("a", "b"):
        write_json(tmp_path / f"{name}.json", {"metrics": [TEACHER, without, STUDENT, INT8]})
    done = workplace.limbeck("compare", tmp_path / "a.json", tmp_path / "b.json", "--json")
    shown = list(dict.fromkeys(row["model"] for row in json.loads(done.out)["figures"]))
    assert shown == ["teacher", "student", "student-int8-unfinetuned", "quantized"]
