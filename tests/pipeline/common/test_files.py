"""Text files: what is written is what is read, and damage is never silent."""

import gzip
import tempfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipeline.common.corpus import read_columns, read_parallel, write_columns
from pipeline.common.errors import UserError
from pipeline.common.files import count_lines, read_lines, write_json, write_lines

# Everything but the line feed, and carriage returns only where they are not at a line's end.
TEXT = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])).map(lambda text: text.rstrip("\r"))


@given(st.lists(TEXT), st.sampled_from(["a.txt", "a.zst", "a.gz"]))
def test_lines_survive_writing_and_reading(lines: list[str], name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        with write_lines(path) as writer:
            for line in lines:
                writer.write(line)
        assert list(read_lines(path)) == lines
        assert count_lines(path) == writer.lines == len(lines)


@given(st.lists(TEXT, min_size=50, max_size=80), st.data())
def test_a_truncated_zst_is_never_read_as_a_shorter_one(lines: list[str], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.zst")
        with write_lines(path) as writer:
            for line in lines:
                writer.write(line)
        whole = path.read_bytes()
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        with pytest.raises(UserError, match=r"a\.zst"):
            list(read_lines(path))


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.zst"
    with write_lines(path) as writer:
        for number in range(1000):
            writer.write(f"line {number}")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(UserError, match="not a sound zstd file"):
        list(read_lines(path))


def test_several_zstd_frames_are_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.zst"
    path.write_bytes(zstandard.compress(b"one\ntwo\n") + zstandard.compress(b"three\n"))
    assert list(read_lines(path)) == ["one", "two", "three"]


def test_a_truncated_gz_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"line\n" * 10_000)[:-20])
    with pytest.raises(UserError, match="not a sound gzip file"):
        list(read_lines(path))
    with pytest.raises(UserError, match="not a sound gzip file"):
        count_lines(path)


def test_bytes_that_are_not_utf8_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"good\nbad \xff\n")
    with pytest.raises(UserError, match="not UTF-8"):
        list(read_lines(path))


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        list(read_lines(tmp_path / "none.zst"))
    with pytest.raises(UserError, match="is a folder"):
        list(read_lines(tmp_path))


def test_a_failure_leaves_neither_a_file_nor_a_temporary_one(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), write_columns(tmp_path / "a.en.zst", tmp_path / "a.de.zst") as corpus:
        corpus.write("one", "eins")
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_a_line_end_inside_a_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds a line end"), write_lines(tmp_path / "a") as writer:
        writer.write("one\ntwo")


@pytest.mark.parametrize("shorter", [0, 1])
def test_sides_of_unequal_length_are_an_error_that_names_the_shorter(tmp_path: Path, shorter: int) -> None:
    paths = [tmp_path / "a.en", tmp_path / "a.de"]
    for number, path in enumerate(paths):
        path.write_text("line\n" * (2 if number == shorter else 3))
    with pytest.raises(UserError, match=rf"{paths[shorter].name} ends after 2 lines"):
        list(read_parallel(*paths))


def test_columns_come_together(tmp_path: Path) -> None:
    with write_columns(tmp_path / "a", tmp_path / "b", tmp_path / "c") as writer:
        writer.write("1", "2", "3")
    assert list(read_columns(tmp_path / "a", tmp_path / "b", tmp_path / "c")) == [("1", "2", "3")]


def test_json_is_written_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "sub" / "a.json", {"a": 1, "b": "ü"})
    assert (tmp_path / "sub" / "a.json").read_text() == '{\n  "a": 1,\n  "b": "ü"\n}\n'


@given(
    st.lists(st.sampled_from(["", "a", "\r", "a\r", "\ra", "ä€😀", "x" * 9, "\u2028", "\x85"]), max_size=12),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.integers(1, 7),
)
def test_blocks_may_end_anywhere_in_a_line(lines: list[str], end: str, ended: bool, block: int) -> None:
    text = end.join(lines) + (end if ended else "")
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.common.files._BLOCK", block)
        path = Path(folder, "a.txt")
        path.write_bytes(text.encode())
        expected = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []
        assert count_lines(path) == len(expected)
        assert list(read_lines(path)) == expected


@pytest.mark.parametrize("block", [1, 3, 1 << 16])
def test_bytes_that_are_no_text_are_named_by_their_line(
    tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.common.files._BLOCK", block)
    (tmp_path / "a.txt").write_bytes("eins\nzwei\ndrei ä\n".encode() + b"vier \xff\n")
    with pytest.raises(UserError, match=r"a\.txt is not UTF-8 text near line 4"):
        list(read_lines(tmp_path / "a.txt"))
