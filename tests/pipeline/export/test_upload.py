"""Publishing to an S3-compatible server, to folders and to memory: whole, resumable, never over other content."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import fsspec
import pytest
from web_server import WebServer

from pipeline.common.errors import TransientError, UserError
from pipeline.export import upload

s3fs = pytest.importorskip("s3fs")
pytest.importorskip("moto.moto_server")

from s3_server import BUCKET, ENVIRONMENT, S3Server, serve_s3  # noqa: E402

LARGE = 17 << 20  # three parts
URL = f"s3://{BUCKET}/en-de"


@pytest.fixture
def s3(monkeypatch):
    with serve_s3() as server:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": server.url}.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield server
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def source(tmp_path):
    """An export of a few small files and a large one, with names of every kind."""
    folder = tmp_path / "export"
    contents = {
        "metadata.json": b"{}",
        "ctranslate2/int8/model.bin": random.Random(1).randbytes(LARGE),
        "marian/Modèle größe 模型.npz": b"weights",
        "marian/100 % #1? a+b&c.txt": b"odd",
        "empty": b"",
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (tmp_path / "report.html").write_bytes(b"<html>")
    return tmp_path


def run(source, url=URL, *more):
    artifacts = [
        "--artifact",
        "export",
        str(source / "export"),
        "--artifact",
        "report.html",
        str(source / "report.html"),
    ]
    upload.main(["--url", url, *artifacts, "--output-dir", str(source / "out"), *more])
    return json.loads((source / "out/upload.json").read_text())


def expected(source):
    """What must be there: the files and their checksums."""
    files = {
        f"export/{path.relative_to(source / 'export').as_posix()}": path.read_bytes()
        for path in (source / "export").rglob("*")
        if path.is_file()
    } | {"report.html": (source / "report.html").read_bytes()}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    sums = {name.removeprefix("export/"): digest for name, digest in digests.items() if name.startswith("export/")}
    listed = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    return files | {
        "export/SHA256SUMS": listed.encode(),
        "report.html.sha256": f"{digests['report.html']}  report.html\n".encode(),
    }


def test_everything_arrives_whole_and_is_listed(s3: S3Server, source):
    result = run(source)
    wanted = expected(source)
    assert s3.objects() == {f"en-de/{name}": content for name, content in wanted.items()}
    assert result["url"] == URL and result["bytes"] == result["sent-bytes"] == LARGE + 18
    files = {entry["name"]: entry for entry in result["files"]}
    assert files.keys() == {name for name in wanted if not name.endswith(("SUMS", ".sha256"))}
    assert all(hashlib.sha256(wanted[name]).hexdigest() == entry["sha256"] for name, entry in files.items())
    # The lists of what is whole are the last; no part that is held in memory is large.
    assert set(s3.sent()[-2:]) == {"en-de/export/SHA256SUMS", "en-de/report.html.sha256"}
    assert max(request.size for request in s3.requests) < 9 << 20


def test_what_is_there_is_not_sent_again(s3: S3Server, source):
    run(source)
    s3.requests.clear()
    (source / "export/more.txt").write_text("more")
    result = run(source)
    assert s3.sent() == ["en-de/export/more.txt", "en-de/export/SHA256SUMS"]
    assert not any(request.method == "GET" and "model.bin" in request.path for request in s3.requests)
    assert result["sent-bytes"] == 4
    assert s3.objects() == {f"en-de/{name}": content for name, content in expected(source).items()}


def test_an_upload_that_was_killed_goes_on(s3: S3Server, source):
    s3.hold = lambda request: "partNumber=2" in request.query
    command = [sys.executable, "-m", "pipeline.export.upload", "--url", URL, "--output-dir", str(source / "out")]
    command += ["--artifact", "export", str(source / "export")]
    process = subprocess.Popen(command, env=os.environ | ENVIRONMENT, stderr=subprocess.DEVNULL)
    s3.wait_for(lambda: len(s3.sent()) >= 5)  # four small files and the large one's first part
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert s3.objects().keys() == {f"en-de/{name}" for name in expected(source)} - {
        "en-de/export/ctranslate2/int8/model.bin",
        "en-de/export/SHA256SUMS",
        "en-de/report.html",
        "en-de/report.html.sha256",
    }
    s3.hold = lambda _: False
    s3.requests.clear()
    run(source)
    model = "en-de/export/ctranslate2/int8/model.bin"
    small = {"en-de/report.html", "en-de/export/SHA256SUMS", "en-de/report.html.sha256"}
    assert sorted(s3.sent()) == sorted([*[model] * 3, *small])
    assert s3.objects() == {f"en-de/{name}": content for name, content in expected(source).items()}


def test_an_interrupted_upload_stops_soon(s3: S3Server, source):
    s3.hold = lambda request: "partNumber=2" in request.query
    command = [sys.executable, "-m", "pipeline.export.upload", "--url", URL, "--output-dir", str(source / "out")]
    command += ["--artifact", "export", str(source / "export")]
    process = subprocess.Popen(command, env=os.environ | ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    s3.wait_for(lambda: len(s3.sent()) >= 5)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)  # for the signal to be taken before the part that it waits for is there
    s3.released.set()
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130 and "interrupted" in said
    assert not {"en-de/export/SHA256SUMS", "en-de/export/ctranslate2/int8/model.bin"} & s3.objects().keys()
    assert list(s3.storage().Bucket(BUCKET).multipart_uploads.all()) == []


def test_other_content_is_never_overwritten_silently(s3: S3Server, source):
    run(source)
    before = s3.objects()
    (source / "export/metadata.json").write_bytes(b"[]")  # of the same size
    (source / "export/empty").write_bytes(b"full")
    s3.requests.clear()
    with pytest.raises(UserError, match=r"has export/empty, export/metadata.json with another content, and nothing"):
        run(source)
    assert s3.sent() == [] and s3.objects() == before
    run(source, URL, "--overwrite")
    assert s3.objects() == {f"en-de/{name}": content for name, content in expected(source).items()}


@pytest.mark.parametrize("name", ["report.html", "export/ctranslate2/int8/model.bin"], ids=["whole", "in parts"])
def test_content_that_came_meanwhile_is_not_overwritten(s3: S3Server, source, monkeypatch, name):
    compare = upload.compare

    def compare_and_lose_the_race(files, target, connections):
        found = compare(files, target, connections)
        system = fsspec.filesystem("s3")
        system.pipe_file(f"{BUCKET}/en-de/{name}", b"another's")
        system.pipe_file(f"{BUCKET}/en-de/export/metadata.json", b"{}")
        return found

    monkeypatch.setattr(upload, "compare", compare_and_lose_the_race)
    with pytest.raises(UserError, match=rf"has {name} with another content"):
        run(source)
    assert s3.objects()[f"en-de/{name}"] == b"another's"


def test_a_list_of_checksums_keeps_what_was_published_before(s3: S3Server, source):
    run(source)
    (source / "export/empty").unlink()
    run(source)
    assert b"  empty\n" in s3.objects()["en-de/export/SHA256SUMS"]
    fsspec.filesystem("s3").pipe_file(f"{BUCKET}/en-de/export/SHA256SUMS", b"my notes")
    with pytest.raises(UserError, match=r"export/SHA256SUMS is no list of checksums"):
        run(source)
    run(source, URL, "--overwrite")
    assert s3.objects()["en-de/export/SHA256SUMS"] == expected(source)["export/SHA256SUMS"]


def test_objects_that_others_sent_are_compared_by_their_content(s3: S3Server, source):
    """In parts of another size, so that S3's ETag says nothing."""
    model = (source / "export/ctranslate2/int8/model.bin").read_bytes()
    with fsspec.filesystem("s3").open(
        f"{BUCKET}/en-de/export/ctranslate2/int8/model.bin", "wb", block_size=6 << 20
    ) as f:
        f.write(model)
    s3.requests.clear()
    run(source)
    assert "en-de/export/ctranslate2/int8/model.bin" not in s3.sent()


def test_refusals_are_told_from_what_may_pass(s3: S3Server, source, monkeypatch):
    with pytest.raises(UserError, match=r"s3://nowhere/en-de/.+ cannot be written, its bucket or folder must be there"):
        run(source, "s3://nowhere/en-de")
    with pytest.raises(UserError, match="Invalid bucket name"):
        run(source, "s3://no bucket/en-de")
    s3.refuse = lambda request: "503 Slow Down" if request.sends else None
    with pytest.raises(TransientError, match=r"s3://models/en-de/.+ cannot be reached"):
        run(source)
    s3.refuse = lambda request: "501 Not Implemented" if request.sends and request.size > 2 else None
    with pytest.raises(UserError, match="cannot be written"):
        run(source)
    s3.refuse = lambda _: None
    s3.check_credentials(True)
    with pytest.raises(UserError, match="with the credentials that are set"):
        run(source)
    s3.check_credentials(False)
    assert not (source / "out").exists()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(UserError, match=r"no valid credentials for s3://.*AWS_ACCESS_KEY_ID"):
        run(source)


def test_a_server_that_is_down_is_worth_a_retry(source, monkeypatch):
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(TransientError, match="cannot be reached"):
        run(source)
    s3fs.S3FileSystem.clear_instance_cache()


def test_storage_without_conditional_writes(s3: S3Server, source, caplog):
    """As of some that speak S3: they say that they do not implement the header."""
    s3.refuse_conditions = True
    run(source, URL, "--connections", "1")
    assert caplog.text.count("s3://models/en-de cannot write on condition that there is nothing") == 1
    assert len(s3.objects()) == len(expected(source))


@pytest.mark.parametrize("kind", ["path", "file", "memory"])
def test_other_storages(source, kind):
    target = source / "pub lished ü"
    url = {"path": str(target), "file": target.as_uri(), "memory": "memory://published"}[kind]
    assert run(source, url)["sent-bytes"] == LARGE + 18
    assert run(source, url)["sent-bytes"] == 0
    if kind == "memory":
        system = fsspec.filesystem("memory")
        assert {path: system.cat_file(path) for path in system.find("/published")} == {
            f"/published/{name}": content for name, content in expected(source).items()
        }
        system.rm("/published", recursive=True)
    else:
        found = {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}
        assert found == expected(source)
        done = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=target / "export", check=False)
        assert done.returncode == 0
        # A download that is published again has no list of its own in the list.
        again = source / "again"
        upload.main(["--url", str(again), "--artifact", "export", str(target / "export"), "--output-dir", str(again)])
        assert (again / "export/SHA256SUMS").read_bytes() == (target / "export/SHA256SUMS").read_bytes()


@pytest.mark.parametrize(
    ("artifact", "message"),
    [
        (["../up", "report.html"], "cannot be published"),
        (["/top", "report.html"], "cannot be published"),
        (["a\nb", "report.html"], "control character"),
        (["gone", "gone"], "gone does not exist"),
        (["hollow", "hollow"], "has no files"),
        (["export", "report.html"], "--artifact names export twice"),
        (["export/empty", "report.html"], "two files would be published as export/empty"),
    ],
)
def test_what_cannot_be_published(source, artifact, message):
    (source / "hollow").mkdir()
    target = source / "published"
    with pytest.raises(UserError, match=message):
        run(source, str(target), "--artifact", artifact[0], str(source / artifact[1]))
    assert not target.exists()


def test_urls_that_take_no_files(source, web: WebServer):
    with pytest.raises(UserError, match="web servers take no files"):
        run(source, web.url)
    with pytest.raises(UserError, match="names no folder"):
        run(source, "s3://")
    with pytest.raises(UserError, match=r"limbeck\[cloud\]"):
        run(source, "abfs://container/models")
    with pytest.raises(UserError, match="at least 1"):
        run(source, "memory://x", "--connections", "0")
    (source / "in-the-way").write_text("a file")
    with pytest.raises(UserError, match=r"in-the-way/.+ cannot be (read|written)"):
        run(source, str(source / "in-the-way"))
