import subprocess
import sys
from pathlib import Path

import pytest
from sacrebleu.dataset import DATASETS
from web_server import WebServer

from pipeline.common.errors import TransientError, UserError
from pipeline.data.probe import addresses, probe


@pytest.fixture
def mirrors(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> WebServer:
    for name in ("OPUS", "FLORES", "NEWS_CRAWL", "HPLT"):
        monkeypatch.setenv(f"LIMBECK_{name}_URL", f"{web.url}/{name.lower()}")
    monkeypatch.delenv("LIMBECK_CACHE", raising=False)
    return web


def test_addresses(mirrors: WebServer) -> None:
    place = mirrors.url
    pair = tuple(f"{place}/opus/OPUS-Books/v1/moses/{pair}.txt.zip" for pair in ("de-en", "en-de"))
    assert addresses("opus_Books/v1", ("en", "de")) == [pair]
    assert addresses("opus_Books/v1", ("de",)) == [(f"{place}/opus/OPUS-Books/v1/mono/de.txt.gz",)]
    assert addresses("flores_dev", ("en", "de")) == [(f"{place}/flores",)]
    assert addresses("hplt_mono/v3.0", ("de",)) == [(f"{place}/hplt/three/sorted/deu_Latn.map",)]
    assert addresses("url_http://a/x.[LANG].gz", ("en", "de")) == [("http://a/x.en.gz",), ("http://a/x.de.gz",)]
    assert addresses("tmx_http://a/x.tmx", ("en", "de")) == [("http://a/x.tmx",)]
    assert addresses("gettext_Django", ("en", "de")) == addresses("file_/data/x.[LANG]", ("en", "de")) == []
    assert mirrors.requests == []  # nobody was asked


def test_sizes(mirrors: WebServer, tmp_path: Path) -> None:
    mirrors.put("/opus/OPUS-Books/v1/moses/en-de.txt.zip", b"x" * 70)
    assert probe("opus_Books/v1", ("en", "de")) == 70
    for language in ("en", "de"):
        mirrors.put(f"/x.{language}.gz", b"x" * 5)
    assert probe(f"url_{mirrors.url}/x.[LANG].gz", ("en", "de")) == 10
    assert all(request.startswith("HEAD ") for request in mirrors.requests)
    assert probe("gettext_Django", ("en", "de")) is None
    mirrors.put("/hplt/three/sorted/deu_Latn.map", b"https://host/1.jsonl.zst")
    assert probe("hplt_mono/v3.0", ("de",)) is None  # the list is there; how much of it is read is not known
    (tmp_path / "memory.tmx").write_bytes(b"12345")
    assert probe(f"tmx_{tmp_path}/memory.tmx", ("en", "de")) == 5


def test_what_does_not_exist(mirrors: WebServer) -> None:
    with pytest.raises(UserError, match=r"opus_Books/v1 does not exist for these languages.*de-en\.txt\.zip, .*en-de"):
        probe("opus_Books/v1", ("en", "de"))
    with pytest.raises(UserError, match=r"there is no file at .*/hplt/three/sorted/deu_Latn\.map"):
        probe("hplt_mono/v3.0", ("de",))
    with pytest.raises(UserError, match="there is no importer"):
        probe("opsu_Books/v1", ("en", "de"))
    with pytest.raises(UserError, match="is monolingual"):
        probe("news-crawl_news.2021", ("en", "de"))
    with pytest.raises(UserError, match="sacreBLEU has no test set"):
        probe("sacrebleu_wmt91", ("en", "de"))


def test_a_server_that_does_not_answer(mirrors: WebServer) -> None:
    mirrors.put("/flores", mirrors.answer(b"", 503))
    with pytest.raises(TransientError, match="503"):
        probe("flores_dev", ("en", "de"))


def test_test_sets_of_sacrebleu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test_set = DATASETS["wmt19"]
    monkeypatch.setattr(test_set, "_rawdir", str(tmp_path))
    assert addresses("sacrebleu_wmt19", ("de", "en")) == [(test_set.data[0],)]
    (tmp_path / "wmt19.test.tgz").write_bytes(b"fetched before")
    assert addresses("sacrebleu_wmt19", ("de", "en")) == []
    assert probe("sacrebleu_wmt19", ("de", "en")) == 0


def test_what_is_kept_needs_no_fetching(mirrors: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path))
    kept = tmp_path / "corpora" / "127.0.0.1" / "opus" / "OPUS-Books" / "v1" / "moses" / "en-de.txt.zip"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"a corpus")
    assert addresses("opus_Books/v1", ("en", "de")) == []
    assert probe("opus_Books/v1", ("en", "de")) == 0
    assert mirrors.requests == []


def test_asking_starts_at_once() -> None:
    code = "import sys; import pipeline.data.probe; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("requests", "sacrebleu", "zstandard", "numpy", "fsspec"):
        assert f"'{heavy}'" not in loaded
