"""What the report says of models beside each other: differences, the front, robustness, the worst sentences, time."""

import re
from typing import Any
from xml.etree import ElementTree

import pytest
from reports import INT8, STUDENT, TEACHER, Report, metrics, significance_of

from pipeline.common.errors import UserError


def test_differences_say_whether_they_are_more_than_luck(report: Report) -> None:
    teacher = {**TEACHER, "ter": {"score": 40.0, "signature": "tok:tercom"}}
    student = {**STUDENT, "ter": {"score": 42.5, "signature": "tok:tercom"}}
    test = significance_of("teacher-1", "student", delta=-1.5, low=-1.9, high=-1.1, p=0.001)
    backwards = significance_of("student-int8", "student", delta=0.2, low=-0.1, high=0.5, p=0.3)
    value, page, _ = report((teacher, student, INT8), significance=(test, backwards))
    assert [(row["old"], row["new"]) for row in value["changes"]] == [
        ("teacher-1", "student"),
        ("student", "student-int8"),
        ("teacher-1", "student-int8"),
    ]
    first, second, whole = value["changes"]
    assert first["chrf"] == {"delta": -1.5, "low": -1.9, "high": -1.1, "p": 0.001, "significant": True}
    assert first["ter"] == {"delta": 2.5} and second["ter"] is None
    assert first["faster"] == 20 and first["smaller"] == 4
    assert second["chrf"] == {"delta": -0.2, "low": -0.5, "high": 0.1, "p": 0.3, "significant": False}
    assert whole["chrf"] == {"delta": -1.7}
    for shown in ("−1.90 … −1.10", "0.001", "n. s.", "+2.50", "1,000 samples"):
        assert shown in page.text, shown
    assert "not tested" not in page.text
    assert "not tested" in report((teacher, student))[1].text


def test_the_fine_tuned_student_stands_between(report: Report) -> None:
    finetuned = metrics("student-finetuned", 58.4, 3000.0, 60_000_000)
    browser = metrics("student-browser", 58.0, 4000.0, 17_000_000, engine="bergamot int8")
    value, page, _ = report((TEACHER, STUDENT, finetuned, INT8, browser))
    assert [(row["old"], row["new"]) for row in value["changes"]] == [
        ("teacher-1", "student"),
        ("student", "student-finetuned"),
        ("student-finetuned", "student-int8"),
        ("student-finetuned", "student-browser"),
        ("teacher-1", "student-int8"),
    ]
    assert "student-int8 beside teacher-1" in page.text


def test_the_pareto_front_is_what_no_other_model_beats(report: Report) -> None:
    beaten = metrics("other", 58.0, 2000.0, 50_000_000)
    value, _, text = report((INT8, STUDENT, TEACHER, beaten, metrics("twin", 58.5, 3000.0, 60_000_000)))
    assert value["pareto"] == [
        {"dataset": "gettext_toy", "src": "en", "trg": "de", "models": ["teacher-1", "student", "student-int8"]}
    ]
    chart = ElementTree.fromstring(re.findall(r"<svg.*?</svg>", text, re.DOTALL)[0])
    (front,) = [line for line in chart.iter("polyline") if line.attrib["class"] == "front"]
    points = [tuple(map(float, point.split(","))) for point in front.attrib["points"].split()]
    assert len(points) == 3
    assert [x for x, _ in points] == sorted(x for x, _ in points)  # faster to the right
    assert [y for _, y in points] == sorted(y for _, y in points)  # and worse further down


def test_augmented_sets_stand_under_their_plain_one(report: Report) -> None:
    def on(dataset: str, entry: dict[str, Any], chrf: float) -> dict[str, Any]:
        return {**entry, "dataset": dataset, "chrf": {**entry["chrf"], "score": chrf}}

    datasets = ("flores_devtest", "flores_aug-upper_devtest", "flores_aug-typos_devtest")
    given = tuple(
        on(dataset, entry, chrf)
        for entry, scores in ((TEACHER, (60.0, 51.5, 58.0)), (STUDENT, (58.5, 40.25, 57.0)))
        for dataset, chrf in zip(datasets, scores, strict=True)
    )
    value, page, _ = report((*given, on("sacrebleu_aug-mix_wmt19", STUDENT, 30.0)))
    (group,) = value["robustness"]
    assert group["dataset"] == "flores_devtest"
    assert group["models"][1] == {
        "name": "student",
        "chrf": 58.5,
        "augmented": {"upper": {"chrf": 40.25, "delta": -18.25}, "typos": {"chrf": 57.0, "delta": -1.5}},
    }
    assert {row["dataset"] for row in value["changes"]} == {"flores_devtest"}
    assert "Robustness on flores_devtest" in page.text and "−18.2" in page.text
    assert "flores_aug-upper_devtest" not in page.text.split("Provenance")[1].split("Training")[0]
    # Without its plain set, an augmented one stands for itself.
    assert "sacrebleu_aug-mix_wmt19 en → de" in " ".join(page.text.split())


def test_the_worst_sentences_are_those_that_lost_most(report: Report) -> None:
    references = [f"Das ist der Satz mit der Nummer {number}" for number in range(30)]
    student = list(references)
    student[7], student[11], student[19] = "", "Das ist der Satz", "Das ist der Satz mit der Numer 19"
    teacher = [line if number != 3 else "nichts davon" for number, line in enumerate(references)]
    columns = {"sources": [str(number) for number in range(30)], "references": references}
    value, page, _ = report(samples={**columns, "student": student, "teacher-1": teacher})
    worst = value["worst"]
    assert (worst["teacher"], worst["student"]) == ("teacher-1", "student")
    assert [sentence["source"] for sentence in worst["sentences"]] == ["7", "11", "19"]
    assert worst["sentences"][0]["drop"] == 100
    assert (worst["better"], worst["equal"], worst["worse"]) == (1, 26, 3)
    assert "better than teacher-1 on 1 of 30 sentences" in page.text and "100 points of chrF lost" in page.text
    assert report(samples={**columns, "student": student})[0]["worst"] is None
    assert report(samples={"student": student, "teacher-1": teacher})[0]["worst"] is None


def test_device_time_is_shown_by_stage(report: Report) -> None:
    value, page, _ = report(durations={"evaluate": 90, "train-teacher-model": 7200.0, "build-vocab": 0})
    assert value["durations"]["evaluate"] == 90
    text = " ".join(page.text.split())
    assert text.index("train-teacher-model 2.0 h 98.8 %") < text.index("evaluate 1.5 min 1.2 %")
    for wrong in ([1], {"evaluate": "long"}, {"evaluate": -1}, {"evaluate": True}):
        with pytest.raises(UserError, match="seconds of every stage"):
            report(durations=wrong)
