import gzip
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from range_server import FileServer, serve_file
from web_server import WebServer

from pipeline.common.download import download, stream
from pipeline.common.errors import TransientError, UserError
from pipeline.common.files import read_lines

# Several of the pieces in which a body is read, and no piece like another.
BODY = random.Random(1).randbytes(1_500_000)


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr("pipeline.common.download.RETRY_DELAYS", (0.0, 0.0))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve_file(BODY) as server:
        yield server


def offset(asked: str | None) -> int:
    return int((asked or "bytes=0-").removeprefix("bytes=").removesuffix("-"))


def test_what_broke_off_is_continued(file: FileServer, tmp_path: Path) -> None:
    file.breaks = [700_000]
    download(file.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    assert file.ranges[0] is None and 400_000 < offset(file.ranges[1]) <= 700_000


def test_a_long_download_goes_on_while_it_gets_further(file: FileServer, tmp_path: Path) -> None:
    file.breaks = [300_000] * 8  # more often than there are attempts without progress
    download(file.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    starts = [offset(asked) for asked in file.ranges]
    assert len(starts) > 4 and starts == sorted(set(starts))


def test_no_progress_gives_up(file: FileServer, tmp_path: Path) -> None:
    file.breaks = [700_000, 0, 0, 0, 0]
    with pytest.raises(TransientError, match="could not be fetched in 3 attempts"):
        download(file.url, tmp_path / "file")
    assert len(file.ranges) == 3


def test_a_server_without_ranges_starts_anew(file: FileServer, tmp_path: Path) -> None:
    file.has_ranges, file.breaks = False, [700_000, 300_000]
    download(file.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_server_without_ranges_is_not_asked_for_ever(file: FileServer, tmp_path: Path) -> None:
    file.has_ranges, file.breaks = False, [300_000, 700_000] * 5
    with pytest.raises(TransientError, match="3 attempts"):
        download(file.url, tmp_path / "file")


def test_without_a_version_of_the_file_nothing_is_continued(file: FileServer, tmp_path: Path) -> None:
    file.version, file.breaks = "", [700_000]
    download(file.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    assert file.ranges == [None, None]


def test_a_file_that_changed_meanwhile_starts_anew(
    file: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.breaks = [700_000]

    def change(_: float) -> None:
        file.body, file.version = b"another file", '"two"'

    monkeypatch.setattr("pipeline.common.download.time.sleep", change)
    download(file.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"another file"
    assert file.ranges[1] is not None


def test_a_file_that_became_shorter(file: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.breaks = [700_000]
    # A careless server: shorter, and the version is the same.
    monkeypatch.setattr("pipeline.common.download.time.sleep", lambda _: setattr(file, "body", b"short"))
    download(file.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"short"


def test_compressing_survives_a_break(file: FileServer, tmp_path: Path) -> None:
    file.body = b"".join(b"%d\n" % number for number in range(200_000))
    file.breaks = [700_000]
    download(file.url, tmp_path / "file.txt", compress=True)
    assert (tmp_path / "file.txt").stat().st_size < len(file.body) / 2
    assert [int(line) for line in read_lines(tmp_path / "file.txt")] == list(range(200_000))
    assert file.ranges[1] is not None


def test_streaming_is_continued(file: FileServer) -> None:
    file.breaks = [700_000, 600_000]
    assert b"".join(stream(file.url)) == BODY
    assert len(file.ranges) == 3


def test_streaming_that_cannot_be_continued(file: FileServer) -> None:
    file.has_ranges, file.breaks = False, [700_000]
    with pytest.raises(TransientError, match="broke off, and the server cannot continue it"):
        b"".join(stream(file.url))


def test_an_empty_file(web: WebServer, tmp_path: Path) -> None:
    download(web.put("/empty", b""), tmp_path / "empty")
    assert (tmp_path / "empty").read_bytes() == b""
    assert list(stream(f"{web.url}/empty")) == [b""]


def test_an_error_stays_an_error(web: WebServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="404"):
        download(f"{web.url}/nothing", tmp_path / "file")
    with pytest.raises(TransientError, match="3 attempts"):
        download(web.put("/short", web.answer(b"abc", announced=9)), tmp_path / "file")


def test_a_body_that_the_server_encodes_all_the_same(web: WebServer, tmp_path: Path) -> None:
    text = b"text " * 1000
    packed = web.answer(gzip.compress(text), headers={"Content-Encoding": "gzip", "ETag": '"one"'})
    download(web.put("/packed", packed), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == text
