import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.clean import mono, parallel
from pipeline.common.errors import UserError
from pipeline.common.files import read_lines, write_lines

PAIRS = [
    ("Save as…", "Speichern unter…"),
    ("The cat  sat on the mat.", "Die Katze saß auf der Matte."),
    ("Size", "GrÃ¶ÃŸe"),
    ("Return value", "R\ufffdckgabewert"),
    ("", "Leer"),
    ("Show open tasks", "Show open tasks"),
]


def write(path: Path, lines: list[str]) -> Path:
    with write_lines(path) as file:
        for line in lines:
            file.write(line)
    return path


def run_parallel(folder: Path, pairs: list[tuple[str, str]], *extra: str) -> tuple[list[str], list[str]]:
    src = write(folder / "in.en.zst", [pair[0] for pair in pairs])
    trg = write(folder / "in.de.zst", [pair[1] for pair in pairs])
    parallel.main(parallel_flags(folder, src, trg) + list(extra))
    return list(read_lines(folder / "out.en.zst")), list(read_lines(folder / "out.de.zst"))


def parallel_flags(folder: Path, src: Path, trg: Path) -> list[str]:
    return [
        *("--src", "en", "--trg", "de", "--input-src", str(src), "--input-trg", str(trg)),
        *("--output-src", str(folder / "out.en.zst"), "--output-trg", str(folder / "out.de.zst")),
        *("--stats", str(folder / "stats.json"), "--removed", str(folder / "removed.zst"), "--dataset", "toy"),
    ]


def test_parallel(tmp_path: Path) -> None:
    src, trg = run_parallel(tmp_path, PAIRS)
    assert src == ["Save as…", "The cat sat on the mat.", "Size"]
    assert trg == ["Speichern unter…", "Die Katze saß auf der Matte.", "Größe"]
    stats = json.loads((tmp_path / "stats.json").read_text())
    removed = stats.pop("removed")
    assert stats == {"dataset": "toy", "src": "en", "trg": "de", "read": 6, "kept": 3, "modified": 2}
    assert {rule: count for rule, count in removed.items() if count} == {"mojibake": 1, "empty": 1, "copied-text": 1}
    assert list(read_lines(tmp_path / "removed.zst")) == [
        "mojibake\tReturn value\tR\ufffdckgabewert",
        "empty\t\tLeer",
        "copied-text\tShow open tasks\tShow open tasks",
    ]


def test_rules_flag(tmp_path: Path) -> None:
    src, _ = run_parallel(tmp_path, PAIRS, "--rules", '{"copied-text": false, "empty": false, "language": false}')
    assert src == ["Save as…", "The cat sat on the mat.", "Size", "", "Show open tasks"]


def test_unknown_rule_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'copied-text'"):
        run_parallel(tmp_path, PAIRS, "--rules", '{"copied": false}')


def test_unequal_sides(tmp_path: Path) -> None:
    src, trg = write(tmp_path / "in.en.zst", ["One", "Two"]), write(tmp_path / "in.de.zst", ["Eins"])
    with pytest.raises(UserError, match=r"in\.de\.zst ends after 1 lines"):
        parallel.main(parallel_flags(tmp_path, src, trg))
    assert not list(tmp_path.glob("out*"))


def test_truncated_input(tmp_path: Path) -> None:
    lines = [f"Line number {number} of many different lines {number * 7919 % 1013}" for number in range(5000)]
    src, trg = write(tmp_path / "in.en.zst", lines), write(tmp_path / "in.de.zst", lines)
    trg.write_bytes(trg.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"in\.de\.zst is (cut short|not a sound)"):
        parallel.main(parallel_flags(tmp_path, src, trg))
    assert not list(tmp_path.glob("out*"))


def test_nothing_left(tmp_path: Path) -> None:
    copies = [("Show open tasks", "Show open tasks"), ("Hide the tasks", "Hide the tasks"), ("", "")]
    with pytest.raises(UserError, match="nothing of data set toy: of 3 lines the rule 'copied-text' removed 2"):
        run_parallel(tmp_path, copies)
    assert not list(tmp_path.glob("out*"))
    assert json.loads((tmp_path / "stats.json").read_text())["removed"]["copied-text"] == 2
    assert len(list(read_lines(tmp_path / "removed.zst"))) == 3


def test_empty_input(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="toy has no lines"):
        run_parallel(tmp_path, [])


def test_mono(tmp_path: Path) -> None:
    lines = ["Der Hund  schläft.", "", "12345", "The author does not know any case.", "nein " * 9, "OK"]
    source = write(tmp_path / "in.de.zst", lines)
    output = tmp_path / "out.de.zst"
    flags = ["--lang", "de", "--input", str(source), "--output", str(output), "--rules", '{"length-ratio": 3}']
    mono.main([*flags, "--stats", str(tmp_path / "stats.json"), "--removed", str(tmp_path / "removed.zst")])
    assert list(read_lines(output)) == ["Der Hund schläft.", "OK"]
    stats = json.loads((tmp_path / "stats.json").read_text())
    assert stats["dataset"] == "in.de.zst"
    assert (stats["read"], stats["kept"], stats["modified"]) == (6, 2, 1)
    assert {rule for rule, count in stats["removed"].items() if count} == {
        *("empty", "alphabetic-words", "repeated-text", "language")
    }
    assert "length-ratio" not in stats["removed"]


WORDS = st.sampled_from(
    ["cat", "Katze", "the", "…", "12", "2013", "\ufffd", "Ã¼", "\u200b", "no", "a@b.de", "x" * 90, "é"]
)
LINE = st.lists(WORDS, max_size=8).map(" ".join) | st.text(
    alphabet=st.characters(exclude_characters="\n", exclude_categories=("Cs",)), max_size=30
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(LINE, LINE), max_size=12))
def test_sides_stay_together_and_cleaning_twice_is_cleaning_once(tmp_path: Path, pairs: list[tuple[str, str]]) -> None:
    # The anchor pair is always kept; its number tells which line of the one side belongs to which of the other.
    anchored = [pair for number, pair in enumerate(pairs) for pair in (pair, (f"Line {number}", f"Zeile {number}"))]
    src, trg = run_parallel(tmp_path, [*anchored, ("Line end", "Zeile Ende")], "--rules", '{"language": false}')
    assert len(src) == len(trg)
    starts = [(a, b) for a, b in zip(src, trg, strict=True) if a.startswith("Line ")]
    assert all(a.removeprefix("Line ") == b.removeprefix("Zeile ") for a, b in starts[:-1])
    stats = json.loads((tmp_path / "stats.json").read_text())
    assert stats["read"] == stats["kept"] + sum(stats["removed"].values())
    again = run_parallel(tmp_path, list(zip(src, trg, strict=True)), "--rules", '{"language": false}')
    assert again == (src, trg)
    assert json.loads((tmp_path / "stats.json").read_text())["modified"] == 0
