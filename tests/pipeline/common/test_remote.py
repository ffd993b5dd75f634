"""Files by URI: what there is, how large it is, and what is said when it is not there."""

import errno
from pathlib import Path

import fsspec
import pytest
from web_server import Answer, WebServer

from pipeline.common import remote
from pipeline.common.download import MissingError
from pipeline.common.errors import TransientError, UserError


@pytest.fixture
def memory() -> fsspec.AbstractFileSystem:
    """fsspec's storage in memory, which stands for s3:// and its like."""
    system = fsspec.filesystem("memory")
    system.pipe("/models/vocab.spm", b"pieces")
    return system


@pytest.fixture
def places(web: WebServer, tmp_path: Path, memory: fsspec.AbstractFileSystem) -> list[str]:
    """The same six bytes in every kind of place."""
    (tmp_path / "vocab.spm").write_bytes(b"pieces")
    path = tmp_path / "vocab.spm"
    return [web.put("/vocab.spm", b"pieces"), str(path), path.as_uri(), "memory://models/vocab.spm"]


def test_every_kind_of_place_is_measured_and_fetched(places: list[str], web: WebServer, tmp_path: Path) -> None:
    assert [remote.size(uri) for uri in places] == [6] * 4
    assert web.requests == ["HEAD /vocab.spm"]
    for number, uri in enumerate(places):
        target = tmp_path / "new" / str(number)
        remote.fetch(uri, target)
        assert target.read_bytes() == b"pieces"
    assert len(list((tmp_path / "new").iterdir())) == 4


def test_what_is_not_there_is_told_from_what_cannot_be_reached(web: WebServer, tmp_path: Path) -> None:
    fsspec.filesystem("memory")
    for uri in (web.url + "/nothing", str(tmp_path / "nothing"), "memory://nothing"):
        assert not remote.exists(uri)
        with pytest.raises(MissingError, match="nothing"):
            remote.fetch(uri, tmp_path / "target")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TransientError, match="attempts"):
        remote.exists(web.put("/broken", Answer(b"", 503)))
    with pytest.raises(UserError, match="401"):
        remote.exists(web.put("/secret", Answer(b"", 401)))


def test_a_server_without_head_is_asked_otherwise(web: WebServer) -> None:
    url = web.put("/file", Answer(b"", 405), Answer(b"pieces"))
    assert remote.size(url) == 6
    assert web.requests == ["HEAD /file", "/file"]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        remote.size(str(tmp_path))


def test_storage_without_its_driver_names_what_to_install() -> None:
    with pytest.raises(UserError, match=r"limbeck\[cloud\]"):
        remote.size("abfs://container/vocab.spm")


def test_paths_may_hold_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", str(tmp_path))
    assert remote.local_path("$DATA/corpus.zst") == tmp_path / "corpus.zst"
    assert remote.local_path("https://example.org/a") is None
    with pytest.raises(UserError, match="NOT_SET"):
        remote.local_path("${NOT_SET}/corpus.zst")
    with pytest.raises(UserError, match="another machine"):
        remote.local_path("file://host/corpus.zst")


def test_a_name_is_joined_before_the_query() -> None:
    assert remote.join("https://host/model/?token=1", "vocab.spm") == "https://host/model/vocab.spm?token=1"
    assert remote.join("/models/one", "vocab.spm") == "/models/one/vocab.spm"


class HttpError(Exception):
    """As gcsfs raises it."""

    def __init__(self, code: int) -> None:
        super().__init__(f"answer {code}")
        self.code = code


HttpError.__module__ = "gcsfs.retry"
RefreshError = type("RefreshError", (Exception,), {"__module__": "google.auth.exceptions"})


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (FileNotFoundError("NoSuchBucket"), UserError, "cannot be written, its bucket or folder must be there"),
        (PermissionError("AccessDenied"), UserError, "may not be written with the credentials that are set: Access"),
        (OSError("Forbidden: b/models"), UserError, "may not be written with the credentials that are set"),
        (OSError(errno.EINVAL, "InvalidBucketName"), UserError, "cannot be written: .*InvalidBucketName"),
        (OSError(errno.EBUSY, "SlowDown"), TransientError, "cannot be reached: .*SlowDown"),
        (ConnectionResetError("reset"), TransientError, "cannot be reached: reset"),
        (HttpError(401), UserError, "cannot be written: answer 401"),
        (HttpError(429), TransientError, "cannot be reached: answer 429"),
        (RefreshError("expired"), UserError, r"no valid credentials for s3:// \(expired\)"),
    ],
)
def test_what_drivers_raise_is_explained(error: Exception, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as found, remote.explained("s3://key:secret@b/models", "written"):
        raise error
    assert "secret" not in str(found.value)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), FileExistsError("there"), ZeroDivisionError("a bug")])
def test_what_is_not_the_storages_stays_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as found, remote.explained("s3://b/models", "written"):
        raise error
    assert found.value is error
