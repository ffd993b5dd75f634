import json
from pathlib import Path

import pytest
from made_bitext import Link, f1, make, write

from pipeline.align.align import main
from pipeline.common.errors import UserError
from pipeline.common.files import read_lines


def run(folder: Path, src: list[str], trg: list[str], *options: str, name: str = "corpus") -> list[set[Link]]:
    paths = write(folder / f"{name}.en.zst", src), write(folder / f"{name}.de.zst", trg)
    output = folder / f"{name}.aln.zst"
    main(["--corpus-src", str(paths[0]), "--corpus-trg", str(paths[1]), "--output", str(output), *options])
    lines = list(read_lines(output))
    assert len(lines) == len(src)
    return [{(int(link.split("-")[0]), int(link.split("-")[1])) for link in line.split()} for line in lines]


@pytest.mark.parametrize("reverse", [True, False])
def test_finds_the_true_alignment(tmp_path: Path, reverse: bool) -> None:
    src, trg, gold = make(2000, reverse=reverse)
    assert f1(run(tmp_path, src, trg), gold) > (0.89 if reverse else 0.96)


def test_chunks_align_nearly_as_well_as_the_whole(tmp_path: Path) -> None:
    src, trg, gold = make(3000)
    whole = run(tmp_path, src, trg)
    chunks = run(tmp_path, src, trg, "--chunk-cells", "20000", name="chunks")  # ten chunks or so
    assert f1(chunks, whole) > 0.95
    assert f1(chunks, gold) > f1(whole, gold) - 0.03


def test_is_deterministic(tmp_path: Path) -> None:
    src, trg, _ = make(600)
    for name in ("a", "b"):
        run(
            *(tmp_path, src, trg, "--chunk-cells", "20000", "--output-priors", str(tmp_path / f"{name}.priors.zst")),
            name=name,
        )
    assert (tmp_path / "a.aln.zst").read_bytes() == (tmp_path / "b.aln.zst").read_bytes()
    assert (tmp_path / "a.priors.zst").read_bytes() == (tmp_path / "b.priors.zst").read_bytes()


@pytest.mark.parametrize("chunk_cells", ["60000000", "30000"])
def test_priors_help_a_tiny_corpus(tmp_path: Path, chunk_cells: str) -> None:
    src, trg, gold = make(2040)
    priors = str(tmp_path / "priors.zst")
    run(tmp_path, src[:2000], trg[:2000], "--output-priors", priors, "--chunk-cells", chunk_cells, name="large")
    tiny = src[2000:], trg[2000:]
    alone = f1(run(tmp_path, *tiny), gold[2000:])
    helped = f1(run(tmp_path, *tiny, "--priors", priors), gold[2000:])
    assert helped > 0.83 > alone + 0.1


def test_priors_are_lines_of_direction_words_and_count(tmp_path: Path) -> None:
    src, trg, _ = make(2000)
    priors = tmp_path / "priors.zst"
    run(tmp_path, src, trg, "--output-priors", str(priors))
    rows = [line.split("\t") for line in read_lines(priors)]
    counts = {(direction, s, t): float(count) for direction, s, t, count in rows}
    assert len(counts) == len(rows)
    uses = sum(line.split().count("s1") for line in src)
    assert 0.65 * uses < counts["forward", "s1", "t1"] < 1.1 * uses
    assert 0.65 * uses < counts["backward", "s1", "t1"] < 1.1 * uses
    assert counts["forward", "", "particle"] > 50  # from nothing


def test_priors_are_added_up(tmp_path: Path) -> None:
    src, trg, _ = make(300)
    first, both = tmp_path / "first.zst", tmp_path / "both.zst"
    run(tmp_path, src, trg, "--output-priors", str(first))
    run(tmp_path, src, trg, "--priors", str(first), "--output-priors", str(both))

    def count(path: Path) -> float:
        return sum(float(line.split("\t")[3]) for line in read_lines(path) if line.startswith("forward\ts1\tt1\t"))

    assert count(both) == pytest.approx(2 * count(first), rel=0.1)


@pytest.mark.parametrize(
    "line",
    [
        "forward\ta\tb",
        "sideways\ta\tb\t1.0",
        "forward\ta\tb\tmany",
        "forward\ta\tb\tnan",
        "forward\ta\tb\t-1",
        "forward\ta\t\t1",
        "",
    ],
)
def test_bad_priors_are_named_with_their_line(tmp_path: Path, line: str) -> None:
    priors = write(tmp_path / "priors.zst", ["forward\ta\tb\t2.5", line])
    with pytest.raises(UserError, match=r"priors\.zst, line 2: "):
        run(tmp_path, ["a"], ["b"], "--priors", str(priors))


def test_case_and_unicode_form_do_not_matter(tmp_path: Path) -> None:
    src, trg, gold = make(400)
    trg = [line.replace("t1 ", "é1 ") for line in trg]
    mixed = [line.upper() if number % 2 else line.replace("é", "e\u0301") for number, line in enumerate(trg)]
    assert run(tmp_path, src, mixed) == run(tmp_path, src, trg)
    assert f1(run(tmp_path, src, mixed), gold) > 0.8


def test_positions_are_those_of_split_words(tmp_path: Path) -> None:
    pair = "Hello, world!", "Hallo, Welt!"
    others = ["Hello !", "world", ",", "Hello , you"], ["Hallo !", "Welt", ",", "Hallo , du"]
    assert run(tmp_path, [pair[0], *others[0]] * 20, [pair[1], *others[1]] * 20)[0] == {(n, n) for n in range(4)}


@pytest.mark.parametrize("chunk_cells", ["60000000", "8"])
def test_empty_sides_give_empty_lines(tmp_path: Path, chunk_cells: str) -> None:
    src = ["", "a b", "a", "", "  ", "b", "a b"]
    trg = ["x", "", "x", "", "y", "y", "x y"]
    links = run(tmp_path, src, trg, "--chunk-cells", chunk_cells, "--stats", str(tmp_path / "stats.json"))
    assert [bool(found) for found in links] == [False, False, True, False, False, True, True]
    stats = json.loads((tmp_path / "stats.json").read_text())
    assert stats == {"pairs": 7, "links": 4, "pairs-without-links": 4, "pairs-too-long": 0}


def test_nothing_but_empty_sides(tmp_path: Path) -> None:
    assert run(tmp_path, ["", "a"], ["", ""]) == [set(), set()]
    assert run(tmp_path, [], []) == []


def test_long_pairs_are_aligned_up_to_the_limit_and_counted_beyond(tmp_path: Path) -> None:
    words = [f"w{n}" for n in range(1500)]
    src = trg = ["w1", " ".join(words), "w3", *words * 2]
    assert len(run(tmp_path, src, trg)[1]) > 1400
    stats = tmp_path / "stats.json"
    links = run(tmp_path, src, trg, "--chunk-cells", "1000000", "--stats", str(stats))
    assert [number for number, found in enumerate(links) if not found] == [1]
    assert json.loads(stats.read_text())["pairs-too-long"] == 1


def test_sides_of_unequal_length(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has 2 lines, but .* has 1"):
        run(tmp_path, ["a", "b"], ["x"])
    assert not (tmp_path / "corpus.aln.zst").exists()


def test_chunk_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--chunk-cells 0"):
        run(tmp_path, ["a"], ["x"], "--chunk-cells", "0")


def test_the_words_that_links_count_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_text("Don't panic, (again)!\n\n今日は\n", encoding="utf-8")
    (tmp_path / "a.de").write_text("Keine Panik!\nLeer\nHeute\n", encoding="utf-8")
    command = ["--corpus-src", str(tmp_path / "a.en"), "--corpus-trg", str(tmp_path / "a.de")]
    words = [str(tmp_path / "tok.en"), str(tmp_path / "tok.de")]
    main([*command, "--output", str(tmp_path / "a.aln.zst"), "--output-tok", *words])
    assert (tmp_path / "tok.en").read_text(encoding="utf-8") == "Don't panic , ( again ) !\n\n今 日 は\n"
    assert (tmp_path / "tok.de").read_text(encoding="utf-8") == "Keine Panik !\nLeer\nHeute\n"
