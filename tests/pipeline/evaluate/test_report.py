"""pipeline.evaluate.report: the page and the JSON, from whole to almost nothing."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports import BACKWARD, INT8, STUDENT, TEACHER, Page, Report, metrics, significance_of

from pipeline.common.errors import UserError
from pipeline.common.files import write_json
from pipeline.evaluate.report import build_report
from pipeline.evaluate.report_html import render_page, summary_sentence
from pipeline.evaluate.table import summary_table

EVIL = "<script>alert(\"x\")</script> & 'y' <b>"

CLEANING = {
    "dataset": "gettext_gramps",
    "src": "en",
    "trg": "de",
    "read": 7000,
    "kept": 6000,
    "modified": 123,
    "removed": {"length-ratio": 800, "too-long": 200, "empty": 0},
}
IMPORT = {"dataset": "gettext_gramps", "src": "en", "trg": "de", "read": 9000, "kept": 7000, "dropped": {"fuzzy": 2000}}
MERGE = {
    "corpora": {"gettext_gramps": {"read": 6000, "kept": 5432, "duplicate": 555, "held-out": 13}},
    "held-out": {"gettext_toy": 13},
    "lines": 5432,
}


def validations(count: int = 5) -> list[dict[str, Any]]:
    return [
        {
            "update": 100 * step,
            "epoch": 0.5 * step,
            "seconds": 3.5 * step,
            "train-cost": 6 / step,
            "lr": 3e-4,
            "words-per-second": 4000.0,
            "chrf": 20.0 + 7 * min(step, 4),
            "ce-mean-words": 5 / step,
            "best": step <= 4,
            "stalled": max(0, step - 4),
        }
        for step in range(1, count + 1)
    ]


SAMPLES = {
    "sources": [f"A sentence with number {'very ' * (number % 17)}{number}" for number in range(40)],
    "references": [f"Ein Satz mit Nummer {'sehr ' * (number % 17)}{number}" for number in range(40)],
    "student": [f"Ein Satz mit Ziffer {'sehr ' * (number % 17)}{number}" for number in range(40)],
}


def test_a_whole_report(report: Report) -> None:
    value, page, _ = report(
        (TEACHER, STUDENT, INT8, BACKWARD),
        (CLEANING, MERGE, IMPORT),
        {"teacher-1": validations(), "student": validations(9)},
        SAMPLES,
    )
    assert set(value) >= {"name", "src", "trg", "metrics", "training", "funnel", "samples"}
    assert value["metrics"][1] == STUDENT
    assert value["funnel"][0] == {"file": "step0", "stats": CLEANING}
    assert len(value["training"]["student"]) == 9
    assert page.tags.count("svg") == 1 + 2 * 2  # one plot (the backward model is alone), two charts per training
    assert page.tags.count("table") == 5  # two for each direction, and the differences
    for shown in ("58.5", "−1.5", "3,000", "20× faster", "4× smaller", "16.0 MB", "60.0 M", "66.7 ms"):
        assert shown in page.text, shown
    for shown in (
        "7,000 read → 6,000 kept",
        "length-ratio",
        "800 (11.4 %)",
        "fuzzy",
        "2,000 (22.2 %)",
        "555 (9.2 %)",
        "gettext_toy 13",
    ):
        assert shown in page.text, shown
    assert "best at update 400" in page.text
    assert "nc:6|nw:0" in page.text
    assert "Toy CPU" in page.text


def test_the_page_needs_nothing_from_elsewhere(report: Report) -> None:
    _, page, text = report((TEACHER, STUDENT), (CLEANING,), {"student": validations()}, SAMPLES)
    assert page.links
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert "url(" not in text
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text


def test_charts_are_well_formed_and_named(report: Report) -> None:
    _, _, text = report((TEACHER, STUDENT, INT8), (), {"student": validations()})
    charts = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]
    assert len(charts) == 3
    for chart in charts:
        assert (chart.findtext("title") or "").strip()
        _, _, width, height = map(float, chart.attrib["viewBox"].split())
        for circle in chart.iter("circle"):
            assert 0 <= float(circle.attrib["cx"]) <= width
            assert 0 <= float(circle.attrib["cy"]) <= height
    bubbles = [circle for circle in charts[0].iter("circle") if circle.attrib["class"] == "bubble"]
    radii = sorted(float(circle.attrib["r"]) for circle in bubbles)
    assert radii[-1] / radii[-2] == pytest.approx(2, rel=0.05)  # four times the size is four times the area


def test_the_summary_says_what_was_lost_and_gained() -> None:
    sentence = summary_sentence({"metrics": [TEACHER, STUDENT, INT8]})
    assert "1.5 chrF points below its teacher, translates 20 times faster and is 4.0 times smaller" in sentence
    assert "0.2 chrF points below the student in full precision, translates 2.5 times faster" in sentence
    better = metrics("student", 61.0, 75.0, 480_000_000)
    sentence = summary_sentence({"metrics": [TEACHER, better]})
    assert "1.0 chrF points above its teacher, translates 2.0 times slower and is 2.0 times larger" in sentence
    assert "same chrF" in summary_sentence({"metrics": [STUDENT, {**INT8, "chrf": STUDENT["chrf"]}]})


def test_an_ensemble_is_the_teacher_and_its_engine_is_named() -> None:
    ensemble = metrics("teacher-ensemble", 61.0, 30.0, 480_000_000, engine="torch ensemble")
    sentence = summary_sentence({"metrics": [TEACHER, ensemble, STUDENT]})
    assert "2.5 chrF points below its teacher, translates 100 times faster" in sentence
    assert "the teacher in torch ensemble" in sentence


def test_whatever_the_texts_hold_is_text(report: Report) -> None:
    samples = {"sources": [EVIL, "ok"], "references": [EVIL, "gut"], "student": [EVIL, ""]}
    cleaning = {**CLEANING, "dataset": EVIL, "removed": {EVIL: 5}, "note": EVIL}
    student = {**STUDENT, "dataset": EVIL, "engine": EVIL, "decoding": {EVIL: EVIL}}
    teacher = {**TEACHER, "dataset": EVIL, "name": "teacher " + EVIL}
    merge = {"corpora": {EVIL: {"read": 2, EVIL: 1, "kept": 1}}, EVIL: {EVIL: [EVIL]}}
    training = {EVIL: [{"update": 1, "chrf": 2.0, "chrf-" + EVIL: 3.0, "best": True}]}
    _, page, _ = report((teacher, student), (cleaning, merge, {EVIL: EVIL}), training, samples, name=EVIL)
    assert page.tags.count("script") == 1  # the page's own
    assert "b" not in page.tags[page.tags.index("main") :]
    assert page.text.count(EVIL) >= 15
    assert "(empty)" in page.text


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"metrics": (STUDENT,)},
        {"metrics": (BACKWARD,)},
        {"metrics": (INT8, TEACHER)},
        {"metrics": ({key: STUDENT[key] for key in ("name", "dataset", "src", "trg", "chrf", "bleu")}, TEACHER)},
        {"metrics": (metrics("student", 0.0, 0.0 + 1e-9, 1), metrics("teacher", 0.0, 1e9, 0))},
        {"training": {"student": []}},
        {"training": {"student": [{"update": 100, "chrf": None, "train-cost": float("nan"), "best": False}]}},
        {"training": {"student": [{"update": 100, "chrf": 5.0, "best": True}], "teacher": [{"note": "reused"}]}},
        {"funnel": ({}, [], 3, None, "text", {"read": 0, "kept": 0, "removed": {}}, {"corpora": {}})},
        {
            "funnel": (
                {"read": "many", "kept": 3},
                {"corpora": {"a": {"read": "x"}}},
                {"removed": 3, "read": 9, "kept": 6},
            )
        },
        {"samples": {"student": ["a", "b"]}},
        {"samples": {"sources": ["a", "b"], "references": ["c", "d"]}},
    ],
)
def test_missing_pieces_leave_a_sound_page(report: Report, given: dict[str, Any]) -> None:
    _, page, text = report(**given)
    assert page.tags.count("section") == 8
    assert not re.search(r"\b(nan|inf|None)\b", text)


def test_what_is_not_there_is_said(report: Report) -> None:
    _, page, _ = report()
    for said in (
        "No model was evaluated",
        "No model was trained",
        "No data was prepared",
        "No translations",
        "no models to compare",
    ):
        assert said in page.text


def test_the_page_is_made_of_the_report_alone(report: Report) -> None:
    value, _, text = report((TEACHER, STUDENT, INT8), (CLEANING, MERGE), {"student": validations()}, SAMPLES)
    assert render_page(value) == text


def test_samples_are_varied_and_do_not_depend_on_the_models(report: Report) -> None:
    first, _, _ = report(samples=SAMPLES)
    other, _, _ = report(samples={**SAMPLES, "student": [line[::-1] for line in SAMPLES["student"]]})
    sources = [sample["source"] for sample in first["samples"]]
    assert sources == [sample["source"] for sample in other["samples"]]
    assert len(set(sources)) == 10
    assert [len(source) for source in sources] == sorted(len(source) for source in sources)
    assert len(sources[-1]) > 2 * len(sources[0])
    sample = first["samples"][0]
    row = SAMPLES["sources"].index(sample["source"])
    assert sample["reference"] == SAMPLES["references"][row]
    assert sample["hypotheses"] == {"student": SAMPLES["student"][row]}
    assert first["samples"][0]["chrf"]["student"] > other["samples"][0]["chrf"]["student"]


def test_how_figures_were_measured_is_told_once(report: Report) -> None:
    measured = {"measured": {"speed": "by a stopwatch"}, "memory": {"peak-rss-bytes": 512_000_000}}
    _, page, _ = report(({**TEACHER, **measured}, {**STUDENT, **measured}))
    assert page.text.count("by a stopwatch") == 1
    assert page.text.count("512.0 MB") == 2


def test_figures_that_engines_have_in_their_own_way_are_told_apart(report: Report) -> None:
    memory = {"memory": "of the interpreter", "speed": "by a stopwatch"}
    browser = {**INT8, "name": "student-browser", "measured": {**memory, "memory": "of Node"}}
    _, page, _ = report(({**TEACHER, "measured": memory}, {**STUDENT, "measured": memory}, browser))
    assert "teacher-1, student: of the interpreter" in page.text
    assert "student-browser: of Node" in page.text
    assert page.text.count("by a stopwatch") == 1


def test_the_summary_says_where_engines_differ() -> None:
    browser = {**INT8, "name": "student-browser", "engine": "bergamot wasm 0.4.9 int8"}
    assert "(it runs in bergamot wasm 0.4.9 int8, that in ctranslate2 float32)." in summary_sentence(
        {"metrics": [STUDENT, browser]}
    )
    assert "runs in" not in summary_sentence({"metrics": [STUDENT, INT8]})


def test_bad_inputs(report: Report, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="equal length"):
        report(samples={**SAMPLES, "student": SAMPLES["student"][1:]})
    with pytest.raises(UserError, match="no metrics file"):
        report((CLEANING,))
    with pytest.raises(UserError, match=r"no file of pipeline\.evaluate\.significance"):
        report(significance=(STUDENT,))
    with pytest.raises(UserError, match="must be numbers"):
        report(significance=(significance_of("a", "b", delta=0.1, low=0.0, high=float("nan"), p=0.5),))
    with pytest.raises(UserError, match=r"line 2, is not JSON"):
        report(training={"student": ['{"update": 1}', '{"update": ']})
    with pytest.raises(UserError, match="JSON object"):
        report(training={"student": ["[1]"]})
    with pytest.raises(UserError, match="does not exist"):
        build_report("x", "en", "de", funnel=[tmp_path / "absent.stats.json"])
    with pytest.raises(UserError, match="'student' twice"):
        build_report("x", "en", "de", training=[("student", tmp_path / "a"), ("student", tmp_path / "b")])


def test_steps_with_the_same_file_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = [tmp_path / folder / name for folder, name in (("a", "corpus"), ("b", "corpus"), ("b", "mono"))]
    paths = [path.with_name(f"{path.name}.stats.json") for path in paths]
    for path in paths:
        write_json(path, MERGE)
    assert [step["file"] for step in build_report("x", "en", "de", funnel=paths)["funnel"]] == [
        "a/corpus",
        "b/corpus",
        "mono",
    ]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["read", "kept", "removed", "corpora", "dataset", "lines", "<x>"]), inner, max_size=5
        )
    ),
    max_leaves=12,
)


EMPTY: dict[str, Any] = {
    key: [] for key in ("metrics", "significance", "changes", "pareto", "robustness", "samples")
} | {"worst": None, "durations": {}}


@given(
    JSON_VALUES,
    st.lists(st.dictionaries(st.sampled_from(["update", "chrf", "train-cost", "best"]), JSON_VALUES), max_size=3),
)
def test_any_statistics_and_validations_give_a_page(stats: Any, records: list[dict[str, Any]]) -> None:
    Page(
        render_page(
            {
                "name": "x",
                "src": "en",
                "trg": "de",
                **EMPTY,
                "training": {"student": records},
                "funnel": [{"file": "f", "stats": stats}],
            }
        )
    )


def test_the_table_for_a_terminal() -> None:
    lines = summary_table([TEACHER, STUDENT, {**INT8, "speed": None, "size-bytes": None}]).splitlines()
    assert lines[0].split() == ["model", "test", "set", "chrF", "BLEU", "size", "MB", "words/s"]
    assert lines[3].split() == ["student", "gettext_toy", "en-de", "58.5", "29.2", "60.0", "3,000"]
    assert lines[4].split()[-2:] == ["-", "-"]
    assert len({line.index("en-de") for line in lines[2:]}) == 1
