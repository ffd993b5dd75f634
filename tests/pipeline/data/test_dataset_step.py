import gzip
import random
from pathlib import Path
from typing import Any

import pytest
import zstandard
from dataset_step import DatasetStep

from pipeline.common.errors import TransientError, UserError
from pipeline.common.files import write_lines
from pipeline.data import dataset
from pipeline.data.source import Source


def write(path: Path, lines: list[str]) -> None:
    with write_lines(path) as writer:
        for line in lines:
            writer.write(line)


def corpus(folder: Path, count: int, ending: str = ".zst") -> str:
    for language in ("en", "de"):
        write(folder / f"corpus.{language}{ending}", [f"{language} {number}" for number in range(count)])
    return f"{folder}/corpus.[LANG]{ending}"


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_files(step: DatasetStep, tmp_path: Path, ending: str) -> None:
    rows = step.parallel(f"file_{corpus(tmp_path, 3, ending)}")
    assert rows == [("en 0", "de 0"), ("en 1", "de 1"), ("en 2", "de 2")]
    assert step.stats["read"] == step.stats["kept"] == 3
    assert (step.stats["src"], step.stats["trg"]) == ("en", "de")


def test_compression_is_told_by_content(step: DatasetStep, tmp_path: Path) -> None:
    (tmp_path / "x.en.txt").write_bytes(gzip.compress(b"one\n"))
    (tmp_path / "x.de.txt").write_bytes(zstandard.compress(b"eins\n"))
    assert step.parallel(f"file_{tmp_path}/x.[LANG].txt") == [("one", "eins")]


def test_relative_paths_home_and_variables(step: DatasetStep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus(tmp_path, 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CORPORA", str(tmp_path))
    for place in (
        "corpus.[LANG].zst",
        "~/corpus.[LANG].zst",
        "$CORPORA/corpus.[LANG].zst",
        "${CORPORA}/corpus.[LANG].zst",
    ):
        assert step.parallel(f"file_{place}") == [("en 0", "de 0")]
    with pytest.raises(UserError, match="variable CORPORE is not set"):
        step.parallel("file_$CORPORE/corpus.[LANG].zst")


def test_mono_with_and_without_the_language_in_its_name(step: DatasetStep, tmp_path: Path) -> None:
    corpus(tmp_path, 2)
    assert step.mono(f"file_{tmp_path}/corpus.[LANG].zst") == ["de 0", "de 1"]
    assert step.mono(f"file_{tmp_path}/corpus.en.zst") == ["en 0", "en 1"]
    assert step.stats["lang"] == "de"


def test_tabs_and_carriage_returns_become_spaces(step: DatasetStep, tmp_path: Path) -> None:
    (tmp_path / "x.en").write_bytes("a\tb\r\nc\rd\u2028e\n".encode())
    (tmp_path / "x.de").write_bytes(b"f\x0bg\nh\n")
    assert step.parallel(f"file_{tmp_path}/x.[LANG]") == [("a b", "f g"), ("c d\u2028e", "h")]


def test_sides_of_unequal_length(step: DatasetStep, tmp_path: Path) -> None:
    name = f"file_{corpus(tmp_path, 3)}"
    write(tmp_path / "corpus.de.zst", ["de 0", "de 1"])
    with pytest.raises(UserError, match="3 lines in en and 2 lines in de"):
        step.parallel(name)
    assert not (tmp_path / "out.en.zst").exists() and not (tmp_path / "stats.json").exists()


def test_bad_files(step: DatasetStep, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.en does not exist"):
        step.parallel(f"file_{tmp_path}/x.[LANG]")
    with pytest.raises(UserError, match=r"must have \[LANG\]"):
        step.parallel(f"file_{tmp_path}/x.en")
    name = f"file_{corpus(tmp_path, 2000)}"
    whole = (tmp_path / "corpus.de.zst").read_bytes()
    (tmp_path / "corpus.de.zst").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"corpus\.de\.zst"):
        step.parallel(name)
    write(tmp_path / "corpus.en.zst", [])
    write(tmp_path / "corpus.de.zst", [])
    with pytest.raises(UserError, match="has no lines"):
        step.parallel(name)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--src", "en", "--trg", "de", "--output-src", "a"],
        ["--lang", "de"],
        ["--lang", "de", "--output", "a", "--src", "en"],
        ["--src", "en", "--trg", "en", "--output-src", "a", "--output-trg", "b"],
        ["--lang", "de", "--output", "a", "--max-sentences", "0"],
    ],
)
def test_wrong_flags(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        dataset.main(["--dataset", "gettext_x", "--stats", "s", *arguments])
    assert "error:" in capsys.readouterr().err


def test_a_sample_keeps_order_and_pairs(step: DatasetStep, tmp_path: Path) -> None:
    name = f"file_{corpus(tmp_path, 500)}"
    rows = step.parallel(name, "--max-sentences", "100", "--seed", "3")
    numbers = [int(src.split()[1]) for src, _ in rows]
    assert len(rows) == 100 and numbers == sorted(set(numbers))
    assert all(trg == f"de {number}" for number, (_, trg) in zip(numbers, rows, strict=True))
    assert step.stats["read"] == 500 and step.stats["dropped"] == {"max-sentences": 400}
    assert step.parallel(name, "--max-sentences", "100", "--seed", "3") == rows
    assert step.parallel(name, "--max-sentences", "100", "--seed", "4") != rows
    assert len(step.parallel(name, "--max-sentences", "1000")) == 500


def test_a_sample_is_even() -> None:
    counts = [0] * 20
    for seed in range(1000):
        rows = ((str(number),) for number in range(20))
        taken = [int(row[0]) for row in dataset.sample(Source(rows, 20), 5, seed)]
        assert len(taken) == 5
        for number in taken:
            counts[number] += 1
    assert all(180 < count < 320 for count in counts)  # 250 expected, standard deviation 14


def test_urls(step: DatasetStep, web: Any, tmp_path: Path) -> None:
    web.put("/c/x.en.gz", gzip.compress(b"one\ntwo\n"))
    web.put("/c/x.de.gz", gzip.compress(b"eins\nzwei\n"))
    web.put("/plain-de", b"drei\n")
    web.put("/y.de.zst", zstandard.compress(b"vier\n"))
    assert step.parallel(f"url_{web.url}/c/x.[LANG].gz") == [("one", "eins"), ("two", "zwei")]
    assert step.stats["origin"]["urls"] == [f"{web.url}/c/x.en.gz", f"{web.url}/c/x.de.gz"]
    assert step.mono(f"url_{web.url}/plain-[LANG]") == ["drei"]
    assert step.mono(f"url_{web.url}/y.de.zst") == ["vier"]
    corpus(tmp_path, 1)
    assert step.mono(f"url_{tmp_path.as_uri()}/corpus.[LANG].zst") == ["de 0"]


def test_a_large_plain_body_is_kept_compressed_and_whole(step: DatasetStep, web: Any) -> None:
    lines = [f"line {number} {random.Random(number).random()}" for number in range(30_000)]
    web.put("/big.de", "\n".join(lines).encode())
    assert step.mono(f"url_{web.url}/big.[LANG]") == lines


def test_url_not_found(step: DatasetStep, web: Any) -> None:
    web.put("/x.en", b"one\n")
    with pytest.raises(UserError, match=r"/x\.de: the server answered 404"):
        step.parallel(f"url_{web.url}/x.[LANG]")
    assert web.requests.count("/x.de") == 1


def test_a_server_that_recovers(step: DatasetStep, web: Any) -> None:
    web.put("/x.de", web.answer(b"busy", 503), web.answer(b"slow down", 429), b"eins\n")
    assert step.mono(f"url_{web.url}/x.[LANG]") == ["eins"]


def test_a_server_that_does_not(step: DatasetStep, web: Any) -> None:
    web.put("/x.de", web.answer(b"busy", 503))
    with pytest.raises(TransientError, match=r"3 attempts.*503"):
        step.mono(f"url_{web.url}/x.[LANG]")
    with pytest.raises(TransientError, match="connection failed"):
        step.mono("url_http://127.0.0.1:9/x.[LANG]")


def test_a_body_that_is_cut_short(step: DatasetStep, web: Any) -> None:
    web.put("/x.de", web.answer(b"eins\nzw", announced=10), b"eins\nzwei\n")
    assert step.mono(f"url_{web.url}/x.[LANG]") == ["eins", "zwei"]
    web.put("/x.de", web.answer(b"eins\nzw", announced=10))
    with pytest.raises(TransientError, match=r"/x\.de"):
        step.mono(f"url_{web.url}/x.[LANG]")


def test_an_error_page_in_place_of_a_zst(step: DatasetStep, web: Any) -> None:
    web.put("/x.de.zst", b"<html>sorry</html>")
    with pytest.raises(UserError, match=rf"{web.url}/x\.de\.zst is not a sound zstd file"):
        step.mono(f"url_{web.url}/x.[LANG].zst")


@pytest.mark.parametrize("url", ["ftp://a.org/x.[LANG]", "corpus.[LANG]", "file://other/x.[LANG]", "http://[LANG"])
def test_addresses_that_cannot_be_read(step: DatasetStep, url: str) -> None:
    with pytest.raises(UserError):
        step.mono(f"url_{url}")


def test_augmented_test_sets(step: DatasetStep, tmp_path: Path) -> None:
    rows = [(f"The weather of day {n} is good.", f"Das Wetter von Tag {n} ist gut.") for n in range(200)]
    for side, language in enumerate(("en", "de")):
        write(tmp_path / f"test.{language}", [row[side] for row in rows])
    place = f"{tmp_path}/test.[LANG]"
    assert step.parallel(f"file_aug-upper_{place}")[3] == (
        "THE WEATHER OF DAY 3 IS GOOD.",
        "DAS WETTER VON TAG 3 IST GUT.",
    )
    assert step.parallel(f"file_aug-punct_{place}")[3] == (rows[3][0][:-1], rows[3][1][:-1])
    typos = step.parallel(f"file_aug-typos_{place}")
    assert sum(source != row[0] for (source, _), row in zip(typos, rows, strict=True)) > 90
    assert [target for _, target in typos] == [row[1] for row in rows]
    assert len(step.parallel(f"file_aug-noise_{place}")) == 400
    mixed = step.parallel(f"file_aug-mix_{place}")
    assert mixed == step.parallel(f"file_aug-mix_{place}")
    changed = sum(row not in rows for row in mixed)
    assert 10 < changed < 100
    noisy = step.parallel(f"file_aug-inline-noise_{place}")
    for (source, target), row in zip(noisy, rows, strict=True):
        number = row[0].split()[4]
        behind = [text.split(f" {number} ")[1] for text in (source, target)]
        # Behind the number, which both sides have: the same noise, then what stood there before.
        assert [behind[0].removesuffix(" is good."), behind[1].removesuffix(" ist gut.")] == [behind[0][:-9]] * 2
    with pytest.raises(UserError, match="is for parallel data sets"):
        step.mono(f"file_aug-mix_{place}")


def test_an_augmentation_that_changes_nothing_is_refused(step: DatasetStep, tmp_path: Path) -> None:
    for language in ("en", "de"):
        write(tmp_path / f"test.{language}", ["今日は天気がいい。"])
    with pytest.raises(UserError, match="aug-upper changes nothing"):
        step.parallel(f"file_aug-upper_{tmp_path}/test.[LANG]")
