"""Cutting into chunks and joining them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.common.errors import UserError
from pipeline.common.files import read_lines, write_lines
from pipeline.translate import chunk, dechunk


def write(path, lines):
    with write_lines(path) as output:
        for line in lines:
            output.write(line)
    return path


@given(
    lines=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r")), max_size=30),
    chunks=st.integers(1, 8),
)
def test_what_is_cut_is_joined(tmp_path_factory, lines, chunks):
    folder = tmp_path_factory.mktemp("chunks")
    text = write(folder / "text.zst", lines)
    chunk.main(["--input", str(text), "--chunks", str(chunks), "--output-dir", str(folder / "c")])
    parts = [folder / "c" / f"file.{number}.zst" for number in range(1, chunks + 1)]
    size = -(-len(lines) // chunks)
    assert [list(read_lines(part)) for part in parts] == [lines[n * size : (n + 1) * size] for n in range(chunks)]
    dechunk.main(["--chunk", *map(str, parts), "--like", str(text), "--output", str(folder / "joined.zst")])
    assert list(read_lines(folder / "joined.zst")) == lines


def test_references_are_cut_in_step_and_the_text_is_written_beside_its_translations(tmp_path):
    text = write(tmp_path / "text.zst", ["a", "b", "c"])
    references = write(tmp_path / "references.zst", ["1", "2", "3"])
    arguments = ["--input", str(text), "--references", str(references), "--chunks", "2", "--output-dir", str(tmp_path)]
    chunk.main(arguments)
    assert list(read_lines(tmp_path / "file.1.ref.zst")) == ["1", "2"]
    assert list(read_lines(tmp_path / "file.2.ref.zst")) == ["3"]
    parts = [flag for number in (1, 2) for flag in ("--chunk", str(tmp_path / f"file.{number}.ref.zst"))]
    outputs = ["--output", str(tmp_path / "out.de.zst"), "--output-like", str(tmp_path / "out.en.zst")]
    dechunk.main([*parts, "--like", str(text), *outputs])
    assert list(read_lines(tmp_path / "out.de.zst")) == ["1", "2", "3"]
    assert list(read_lines(tmp_path / "out.en.zst")) == ["a", "b", "c"]


def test_sides_of_unequal_length_are_not_cut(tmp_path):
    text, references = write(tmp_path / "a.zst", ["a", "b"]), write(tmp_path / "b.zst", ["1"])
    with pytest.raises(UserError, match="has 1 lines, but"):
        chunk.chunk([text, references], 2, tmp_path / "c")
    with pytest.raises(UserError, match="at least 1"):
        chunk.chunk([text], 0, tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(("lines", "message"), [(["1"], "only 1 lines"), (["1", "2", "3"], "more lines than the 2")])
def test_chunks_that_do_not_make_up_the_text(tmp_path, lines, message):
    text, part = write(tmp_path / "text.zst", ["a", "b"]), write(tmp_path / "part.zst", lines)
    with pytest.raises(UserError, match=message):
        dechunk.dechunk([part], text, tmp_path / "out.zst", tmp_path / "copy.zst")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part.zst", "text.zst"]
