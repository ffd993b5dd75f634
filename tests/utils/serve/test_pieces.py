"""Logs read piece by piece, first lines of files, and figures of curves."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard
from engine_graphs import make_engine, make_task
from serve_site import serve_site

from utils.serve.curves import read_records, resource_figures, training_figures
from utils.serve.previews import first_lines, previews
from utils.serve.resources import Sample, Series
from utils.serve.task_logs import FIRST, RemoteLogs, clean, from_lines, read_piece


def lines_of(path: Path, offset: int | None = None) -> list[str]:
    return [text for text, _ in read_piece(path, offset).lines]


def test_a_log_that_grows(tmp_path: Path) -> None:
    log = tmp_path / "live.log"
    assert read_piece(log, None).lines == []
    log.write_bytes("eins\nzwei mit Ü".encode()[:-1])  # in the middle of a letter
    first = read_piece(log, None)
    assert first.lines == [("eins", "")] and first.partial.startswith("zwei mit")
    with log.open("ab") as file:
        file.write("Ü".encode()[-1:] + b"\ndrei\n")
    second = read_piece(log, first.end)
    assert second.lines == [("zwei mit Ü", ""), ("drei", "")] and second.partial == ""
    assert read_piece(log, second.end).lines == []


def test_a_large_log_is_shown_from_its_end_and_read_in_pieces(tmp_path: Path) -> None:
    log = tmp_path / "live.log"
    written = [f"line {number:07d}" for number in range(200_000)]
    log.write_text("\n".join(written) + "\n")
    tail = read_piece(log, None)
    assert FIRST - 20 < tail.size - tail.start <= FIRST
    assert [text for text, _ in tail.lines] == written[-len(tail.lines) :]
    offset, found = 0, []
    while offset < log.stat().st_size:
        piece = read_piece(log, offset)
        assert piece.partial == ""
        found += [text for text, _ in piece.lines]
        offset = piece.end
    assert found == written


def test_a_log_that_was_begun_anew_is_read_from_its_beginning(tmp_path: Path) -> None:
    log = tmp_path / "live.log"
    log.write_text("a new log\n")
    assert lines_of(log, offset=1000) == ["a new log"]


def test_a_line_without_end(tmp_path: Path) -> None:
    log = tmp_path / "live.log"
    log.write_bytes(b"x" * 3_000_000)
    offset, length = 0, 0
    while (piece := read_piece(log, offset)).lines:
        length, offset = length + sum(len(text) for text, _ in piece.lines), piece.end
    assert length + len(piece.partial) == 3_000_000


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("\x1b[31mred\x1b[0m", ("red", "")),
        (" 10%\r 50%\r100%\r", ("100%", "")),
        ("[limbeck] 2026-01-01 started", ("[limbeck] 2026-01-01 started", "engine")),
        ("error: no such file", ("error: no such file", "wrong")),
        ("ValueError: no", ("ValueError: no", "wrong")),
        ("no error: all is well", ("no error: all is well", "")),
        ("", ("", "")),
    ],
)
def test_lines_as_a_terminal_shows_them(line: str, expected: tuple[str, str]) -> None:
    assert clean(line) == expected


def test_a_log_that_is_elsewhere() -> None:
    lines = ["one\n", "two\n"]
    assert [text for text, _ in from_lines(lines, None).lines] == ["one", "two"]
    assert from_lines([*lines, "three\n"], 2).lines == [("three", "")]


def test_first_lines_of_all_kinds_of_files(tmp_path: Path) -> None:
    text = "".join(f"Zeile {number} äöü\n" for number in range(50_000))
    (tmp_path / "plain.txt").write_text(text)
    (tmp_path / "text.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "text.zst").write_bytes(zstandard.compress(text.encode()))
    for name in ("plain.txt", "text.gz", "text.zst"):
        found = first_lines(tmp_path / name)
        assert found and found[1] and found[0][:2] == ["Zeile 0 äöü", "Zeile 1 äöü"], name
    (tmp_path / "one-line.txt").write_text("ä" * 100_000)
    found = first_lines(tmp_path / "one-line.txt")
    assert found and len(found[0]) == 1 and len(found[0][0]) < 500
    (tmp_path / "x.json").write_text('{"b": [1, 2], "a": "<"}')
    assert first_lines(tmp_path / "x.json") == (["{", '  "b": [', "    1,", "    2", "  ],", '  "a": "<"', "}"], False)
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    (tmp_path / "latin.txt").write_bytes("ä".encode("latin-1") * 10)
    (tmp_path / "damaged.zst").write_bytes(zstandard.compress(text.encode())[:-100])
    (tmp_path / "damaged.gz").write_bytes(gzip.compress(b"hello\n" * 10)[:-12] + b"x" * 4)
    (tmp_path / "no.zst").write_bytes(b"plain")
    for name in ("binary", "latin.txt", "no.zst", "damaged.gz", "absent"):
        assert first_lines(tmp_path / name) is None, name
    assert first_lines(tmp_path / "damaged.zst"), "its beginning is sound"


def test_both_sides_of_a_corpus_stand_beside_each_other(tmp_path: Path) -> None:
    files = {}
    for name, lines in (("a.de.zst", "eins\nzwei\n"), ("a.en.zst", "one\n"), ("b.en.gz", "alone\n"), ("c.npz", "\0")):
        files[name] = tmp_path / name
        files[name].write_bytes((gzip if name.endswith("gz") else zstandard).compress(lines.encode()))
    found = previews(files, ["en", "de"])
    assert [(list(entry.names), [list(row) for row in entry.rows]) for entry in found] == [
        (["a.en.zst", "a.de.zst"], [["one", "eins"], ["", "zwei"]]),
        (["b.en.gz"], [["alone"]]),
    ]
    assert len(previews(files, [])) == 3


def record(update: int, **values: Any) -> dict[str, Any]:
    return {"update": update, "epoch": 1.0, "seconds": 2.0, "best": True, "stalled": 0, **values}


def test_a_figure_for_each_quantity(tmp_path: Path) -> None:
    first = [
        record(10, **{"train-cost": 5.0, "chrf": 10.0, "lr": 1e-3}),
        record(20, **{"train-cost": 4.0, "chrf": 20.0}),
    ]
    second = [
        record(5, **{"train-cost": 6.0, "own-cost": 1.0}),
        record(10, **{"train-cost": None, "chrf": float("nan")}),
    ]
    figures = {figure["key"]: figure for figure in training_figures([("one", first), ("two", second)])}
    assert list(figures) == ["train-cost", "chrf", "lr", "own-cost"]
    traces = figures["train-cost"]["data"]
    assert [(trace["name"], trace["x"], trace["y"]) for trace in traces] == [
        ("one", [10, 20], [5.0, 4.0]),
        ("two", [5], [6.0]),
    ]
    assert traces[0]["meta"] != traces[1]["meta"], "told apart by their colours"
    assert [trace["name"] for trace in figures["chrf"]["data"]] == ["one"]
    long = [record(number, chrf=float(number)) for number in range(10_001)]
    points = training_figures([("long", long)])[0]["data"][0]
    assert len(points["x"]) < 4000 and points["x"][-1] == 10_000


def test_a_log_that_is_being_written(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(record(1, chrf=2.0)) + "\nno json\n[1]\n" + json.dumps(record(2))[:-5])
    assert [found["update"] for found in read_records(path)] == [1]
    assert read_records(tmp_path / "none") == []


def test_curves_of_trainings_that_run_and_that_are_done(tmp_path: Path) -> None:
    engine = make_engine(tmp_path / "runs")
    write = """printf '{"update": 5, "chrf": 1.5}\\n' > $TASK_WORKDIR/artifacts/train.jsonl"""
    engine.submit("one", "One", [make_task("trained", write), make_task("plain")], "")
    assert engine.run("one").succeeded
    running = make_task("training")
    engine.submit("two", "Two", [running], "")
    checkpoints = engine.store.layout.checkpoints(running.digest)
    checkpoints.mkdir(parents=True)
    (checkpoints / "train.jsonl").write_text('{"update": 7, "chrf": 2.5}\n')
    with serve_site(tmp_path / "runs") as site:
        page = site.page("/curves")
        assert 'value="trained"' in page and 'value="plain"' not in page
        assert 'value="training" checked' in page, "the newest run's are shown at first"
        both = site.json("/curves/data?task=trained&task=training")["figures"]
        assert [(trace["name"], trace["x"]) for trace in both[0]["data"]] == [
            ("trained (one)", [5]),
            ("training (two)", [7]),
        ]
        assert 'value="trained" checked' in site.page("/curves?run=one")
        assert site.json("/curves/data") == {"figures": [], "running": False}
        assert site.get("/curves/data?task=none").status_code == 404
        script = site.get("/static/plotly.js")
        assert script.headers["Content-Type"].startswith("text/javascript") and len(script.content) > 1_000_000


def test_samples_are_thinned_out_and_drawn() -> None:
    series = Series(0)
    for number in range(10_000):
        series.add(Sample(moment=1000.0 + number, cpus=1.5, memory=2_000_000_000, processes=2))
    assert 500 < len(series.samples) <= 1441
    steps = {b.moment - a.moment for a, b in zip(series.samples, series.samples[1:], strict=False)}
    assert max(steps) <= 2 * series.stride
    figures = {figure["key"]: figure for figure in resource_figures(series.samples)}
    assert figures.keys() == {"cpus", "memory"}
    assert figures["memory"]["data"][0]["y"][0] == 2.0
    on_gpu = [Sample(float(number), 1.0, 1, 1, gpu=0.5, gpu_memory=3_000_000_000) for number in range(3)]
    assert {figure["key"] for figure in resource_figures(on_gpu)} == {"cpus", "memory", "gpu", "gpu-memory"}
    assert resource_figures([]) == []


def test_a_log_of_elsewhere_is_fetched_once_for_all_who_look() -> None:
    fetched: list[str] = []

    def fetch() -> list[str]:
        fetched.append("once")
        return ["one\n"]

    logs = RemoteLogs(period=60, most=2)
    assert logs.lines("task running", fetch) == logs.lines("task running", fetch) == ["one\n"]
    assert len(fetched) == 1
    logs.lines("task completed", fetch)  # what it said last
    assert len(fetched) == 2
    hasty = RemoteLogs(period=0)
    hasty.lines("task", fetch), hasty.lines("task", fetch)
    assert len(fetched) == 4
