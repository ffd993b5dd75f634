"""The drawing of a graph: rows, boxes and lines."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.serve.graph_layout import Drawing, draw, topological


def row_of(drawing: Drawing) -> dict[str, int]:
    return {key: number for number, row in enumerate(drawing.rows) for key in row}


def check(drawing: Drawing, kinds: dict[str, str], reads: dict[str, list[str]]) -> None:
    """Every task is in one box of its kind; what is read stands above; every line goes from row to row."""
    box_of = {task: box for box in drawing.boxes.values() for task in box.task_ids}
    assert box_of.keys() == kinds.keys()
    assert sum(len(box.task_ids) for box in drawing.boxes.values()) == len(kinds)
    rows = row_of(drawing)
    placed = list(itertools.chain(*drawing.rows))
    assert len(placed) == len(set(placed))
    ends = set()
    for line in drawing.lines:
        ends.add((line.path[0], line.path[-1]))
        if not line.implied:
            assert [rows[key] for key in line.path] == list(range(rows[line.path[0]], rows[line.path[-1]] + 1))
    for task, sources in reads.items():
        for source in sources:
            assert rows[box_of[source].key] < rows[box_of[task].key]
            assert (box_of[source].key, box_of[task].key) in ends
    assert all(kinds[task] == box.kind for task, box in box_of.items())


def test_chunks_share_a_box() -> None:
    kinds = {"data": "data", **{f"c{n}": "chunk" for n in range(300)}, "end": "end"}
    reads = {**{f"c{n}": ["data"] for n in range(300)}, "end": [f"c{n}" for n in range(300)]}
    drawing = draw(kinds, reads)
    check(drawing, kinds, reads)
    assert [len(row) for row in drawing.rows] == [1, 1, 1]


def test_lines_that_others_imply() -> None:
    kinds = {name: name for name in "abc"}
    drawing = draw(kinds, {"b": ["a"], "c": ["a", "b"]})
    assert {(line.path, line.implied) for line in drawing.lines} == {
        (("a", "b"), False),
        (("b", "c"), False),
        (("a", "c"), True),
    }


def test_a_line_has_a_place_in_each_row_that_it_crosses() -> None:
    kinds = {name: name for name in "abcde"}
    reads = {"b": ["a"], "c": ["b"], "d": ["c", "e"], "e": ["a"]}
    drawing = draw(kinds, reads)
    check(drawing, kinds, reads)
    assert sum(len(line.path) - 2 for line in drawing.lines) == 1


def test_what_is_read_late_stands_late() -> None:
    """A test set that only the evaluation reads does not stand above the whole graph."""
    kinds = {name: name for name in ("train", "teacher", "student", "test", "evaluate")}
    reads = {"teacher": ["train"], "student": ["teacher"], "evaluate": ["student", "test"]}
    rows = row_of(draw(kinds, reads))
    assert rows["test"] == rows["student"]


def test_tasks_of_a_kind_that_read_each_other_are_parted() -> None:
    kinds = {"a": "same", "b": "same", "c": "same", "between": "other"}
    reads = {"between": ["a"], "b": ["between"], "c": ["b"]}
    drawing = draw(kinds, reads)
    check(drawing, kinds, reads)
    assert len(drawing.boxes) == 4


def test_a_circle_is_refused() -> None:
    with pytest.raises(ValueError, match="circle"):
        topological({"a": ["b"], "b": ["a"]})


@given(st.lists(st.tuples(st.integers(0, 4), st.sets(st.integers(1, 6), max_size=3)), max_size=24))
def test_any_graph(nodes: list[tuple[int, set[int]]]) -> None:
    kinds = {f"t{number}": f"kind-{kind}" for number, (kind, _) in enumerate(nodes)}
    reads = {f"t{n}": [f"t{n - back}" for back in sorted(backs) if n >= back] for n, (_, backs) in enumerate(nodes)}
    check(draw(kinds, reads), kinds, reads)


def test_a_deep_graph_and_a_large_one() -> None:
    deep = {f"t{number}": f"k{number}" for number in range(1000)}
    assert len(draw(deep, {f"t{n}": [f"t{n - 1}"] for n in range(1, 1000)}).rows) == 1000
    kinds = {f"t{number}": f"k{number // 400}" for number in range(10_000)}
    reads = {f"t{n}": [f"t{n - 400}"] for n in range(400, 10_000)}
    started = time.process_time()
    check(draw(kinds, reads), kinds, reads)
    assert time.process_time() - started < 5
