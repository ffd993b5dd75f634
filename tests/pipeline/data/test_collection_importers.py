"""FLORES, News Crawl and HPLT."""

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard
from dataset_step import DatasetStep
from web_server import WebServer

from pipeline.common.errors import TransientError, UserError


def flores_archive(*codes: str, part: str = "devtest") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for code in ("README", *codes):
            text = f"{code} 0\n{code} 1\n".encode()
            name = f"./flores200_dataset/{part}/{code}.{part}" if code != "README" else "./flores200_dataset/README"
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    return content.getvalue()


@pytest.fixture
def flores(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> WebServer:
    monkeypatch.setenv("LIMBECK_FLORES_URL", f"{web.url}/flores200_dataset.tar.gz")
    web.put(
        "/flores200_dataset.tar.gz",
        flores_archive("eng_Latn", "deu_Latn", "zho_Hans", "zho_Hant", "srp_Cyrl", "est_Latn", "kas_Arab", "kas_Deva"),
    )
    return web


def test_flores(step: DatasetStep, flores: WebServer) -> None:
    assert step.parallel("flores_devtest") == [("eng_Latn 0", "deu_Latn 0"), ("eng_Latn 1", "deu_Latn 1")]
    assert step.stats["origin"]["languages"] == ["eng_Latn", "deu_Latn"]
    assert step.mono("flores_devtest") == ["deu_Latn 0", "deu_Latn 1"]


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("zh", "zho_Hans"),
        ("zh_hant", "zho_Hant"),
        ("zh-TW", "zho_Hant"),
        ("sr", "srp_Cyrl"),
        ("sr_cyrl", "srp_Cyrl"),
        ("et", "est_Latn"),
        ("de_AT", "deu_Latn"),
        ("ks_deva", "kas_Deva"),
    ],
)
def test_languages_of_flores(step: DatasetStep, flores: WebServer, language: str, code: str) -> None:
    assert step.mono("flores_devtest", language=language)[0] == f"{code} 0"


def test_what_flores_does_not_have(step: DatasetStep, flores: WebServer) -> None:
    with pytest.raises(UserError, match=r"does not have the language fr \(fra\)"):
        step.parallel("flores_devtest", languages=("en", "fr"))
    with pytest.raises(UserError, match="has kas_Arab and kas_Deva for ks: name the language with one of these"):
        step.mono("flores_devtest", language="ks")
    with pytest.raises(UserError, match="has srp_Cyrl for sr_latn"):
        step.mono("flores_devtest", language="sr_latn")
    with pytest.raises(UserError, match="FLORES has flores_dev and flores_devtest"):
        step.parallel("flores_test")
    with pytest.raises(UserError, match="does not have the language en"):
        step.parallel("flores_dev")


@pytest.mark.parametrize("size", [-30, 60])
def test_a_flores_archive_that_is_cut(step: DatasetStep, flores: WebServer, size: int) -> None:
    flores.put("/flores200_dataset.tar.gz", flores_archive("eng_Latn", "deu_Latn")[:size])
    with pytest.raises(UserError, match=r"not a sound tar\.gz archive"):
        step.parallel("flores_devtest")


@pytest.fixture
def news(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> WebServer:
    monkeypatch.setenv("LIMBECK_NEWS_CRAWL_URL", f"{web.url}/news-crawl/")
    return web


def test_news_crawl(step: DatasetStep, news: WebServer) -> None:
    news.put("/news-crawl/de/news.2021.de.shuffled.deduped.gz", gzip.compress("Öl\nWein\n".encode()))
    assert step.mono("news-crawl_news.2021") == ["Öl", "Wein"]


def test_bad_news(step: DatasetStep, news: WebServer) -> None:
    address = "/news-crawl/de/news.2021.de.shuffled.deduped.gz"
    with pytest.raises(UserError, match=r"there is no file at .*news\.2021\.de\.shuffled\.deduped\.gz"):
        step.mono("news-crawl_news.2021")
    news.put(address, gzip.compress(b"eins\n" * 1000)[:-10])
    with pytest.raises(UserError, match=r"http://.*\.gz is not a sound gzip file"):
        step.mono("news-crawl_news.2021")
    with pytest.raises(UserError, match="must name a year, as in"):
        step.mono("news-crawl_2021")
    with pytest.raises(UserError, match="is monolingual: it belongs under mono-src or mono-trg"):
        step.parallel("news-crawl_news.2021")
    with pytest.raises(UserError, match="no text in zh_hant"):
        step.mono("news-crawl_news.2021", language="zh_hant")


def document(*paragraphs: str, score: float = 8.0, language: str = "deu_Latn", segments: str = "") -> dict[str, Any]:
    """A document as HPLT has it, with the fields that matter here."""
    return {
        "id": "0",
        "lang": [language, "eng_Latn", "nld_Latn"],
        "prob": [0.9, 0.1, 0.0],
        "text": "\n".join(paragraphs),
        "seg_langs": segments.split() or [language] * len(paragraphs),
        "doc_scores": [score, 9.0, 9.0],
    }


class Hplt:
    """HPLT's server with one language."""

    def __init__(self, web: WebServer) -> None:
        self.web = web

    def put(self, code: str = "deu_Latn", **shards: list[dict[str, Any]]) -> None:
        lines = []
        for name, documents in shards.items():
            path = f"/three/sorted/{code}/{name.removeprefix('shard_')}.jsonl.zst"
            text = "".join(json.dumps(found, ensure_ascii=False) + "\n" for found in documents).encode()
            frames = [zstandard.compress(part) for part in (text[: len(text) // 2], text[len(text) // 2 :])]
            self.web.put(path, b"".join(frames))
            lines.append(f"https://data.hplt-project.org{path}\n")
        self.web.put(f"/three/sorted/{code}.map", "".join(lines).encode())


@pytest.fixture
def hplt(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> Hplt:
    monkeypatch.setenv("LIMBECK_HPLT_URL", web.url)
    return Hplt(web)


def test_hplt_takes_paragraphs_of_the_language(step: DatasetStep, hplt: Hplt) -> None:
    hplt.put(
        shard_8_1=[
            document("Öl\u2028und", "Wein", "bread", " ", segments="deu_Latn deu_Latn eng_Latn deu_Latn"),
            document("low", score=5.5),
            document("other", language="nld_Latn"),
            document("uneven", segments="deu_Latn deu_Latn"),
        ]
    )
    assert step.mono("hplt_mono/v3.0", "--min-doc-score", "6") == ["Öl\u2028und", "Wein"]
    assert step.stats["dropped"] == {
        "paragraph-language": 1,
        "empty": 1,
        "document-score": 1,
        "document-language": 1,
        "document-segments": 1,
    }
    assert step.stats["read"] == 7
    assert len(step.mono("hplt_mono/v3.0")) == 3  # no score is wanted


def test_hplt_reads_no_more_than_it_takes(step: DatasetStep, hplt: Hplt) -> None:
    shards = {f"shard_9_{number}": [document(f"{number} {row}") for row in range(50)] for number in range(1, 9)}
    hplt.put(**shards, shard_5_1=[document("bad", score=5.2)])
    rows = step.mono("hplt_mono/v3.0", "--max-sentences", "60", "--min-doc-score", "7.5")
    assert len(rows) == 60
    fetched = [path for path in hplt.web.requests if path.endswith(".zst")]
    assert len(fetched) == 2 and fetched != sorted(f"/three/sorted/deu_Latn/9_{number}.jsonl.zst" for number in (1, 2))
    assert step.mono("hplt_mono/v3.0", "--max-sentences", "60", "--min-doc-score", "7.5") == rows


def test_hplt_shards_that_may_have_the_score(step: DatasetStep, hplt: Hplt) -> None:
    hplt.put(shard_7_1=[document("a", score=7.6), document("b", score=7.2)], shard_6_1=[document("c", score=6.9)])
    assert step.mono("hplt_mono/v3.0", "--min-doc-score", "7.5") == ["a"]
    assert not any("6_1" in path for path in hplt.web.requests)
    with pytest.raises(UserError, match=r"no documents with a score of 8\.5"):
        step.mono("hplt_mono/v3.0", "--min-doc-score", "8.5")


def test_hplt_under_another_code(step: DatasetStep, hplt: Hplt) -> None:
    hplt.put("hbs_Latn", shard_8_1=[document("dobro", language="hbs_Latn")])
    assert step.mono("hplt_mono/v3.0", language="bs") == ["dobro"]
    with pytest.raises(UserError, match=r"there is no file at .*fra_Latn\.map"):
        step.mono("hplt_mono/v3.0", language="fr")


def test_bad_hplt(step: DatasetStep, hplt: Hplt) -> None:
    with pytest.raises(UserError, match=r"HPLT has hplt_mono/v3\.0 and hplt_mono/v2\.0"):
        step.mono("hplt_mono/v1.1")
    hplt.put(shard_8_1=[{"text": "no scores"}])
    with pytest.raises(UserError, match=r"line 1 of .*8_1\.jsonl\.zst is not a document of HPLT"):
        step.mono("hplt_mono/v3.0")
    hplt.put(shard_8_1=[document("a")])
    hplt.web.put("/three/sorted/deu_Latn/8_1.jsonl.zst", b"<html>")
    with pytest.raises(UserError, match=r"8_1\.jsonl\.zst is not a sound zstd file"):
        step.mono("hplt_mono/v3.0")
    hplt.web.put("/three/sorted/deu_Latn/8_1.jsonl.zst", zstandard.compress(b'{"text": "x", "lang"'))
    with pytest.raises(UserError, match="not a document of HPLT"):
        step.mono("hplt_mono/v3.0")
    hplt.web.put("/three/sorted/deu_Latn/8_1.jsonl.zst", hplt.web.answer(b"", 503))
    with pytest.raises(TransientError, match="503"):
        step.mono("hplt_mono/v3.0")


def test_a_mirror_in_a_folder(step: DatasetStep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMBECK_HPLT_URL", str(tmp_path / "mirror"))
    monkeypatch.setenv("LIMBECK_NEWS_CRAWL_URL", (tmp_path / "mirror").as_uri())
    shards = tmp_path / "mirror" / "three" / "sorted"
    (shards / "deu_Latn").mkdir(parents=True)
    (shards / "deu_Latn.map").write_text("https://data.hplt-project.org/three/sorted/deu_Latn/8_1.jsonl.zst\n")
    (shards / "deu_Latn" / "8_1.jsonl.zst").write_bytes(zstandard.compress(json.dumps(document("eins")).encode()))
    (tmp_path / "mirror" / "de").mkdir()
    (tmp_path / "mirror" / "de" / "news.2020.de.shuffled.deduped.gz").write_bytes(gzip.compress(b"zwei\n"))
    assert step.mono("hplt_mono/v3.0") == ["eins"]
    assert step.mono("news-crawl_news.2020") == ["zwei"]
