import gzip
import io
import zipfile
from pathlib import Path

import pytest
from dataset_step import DatasetStep
from web_server import WebServer

from pipeline.common.errors import TransientError, UserError


def archive(**members: str) -> bytes:
    """A zip as OPUS makes it; `de_en__de` stands for Books.de-en.de, and there is more than the two texts."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("README", "Corpus Name: Books\n")
        file.writestr("LICENSE", "for anyone\n")
        for name, text in members.items():
            pair, _, code = name.partition("__")
            file.writestr(f"Books.{pair.replace('_', '-', 1)}.{code}", text)
        file.writestr("Books.xml", "<linkGrp/>\n")
    return content.getvalue()


@pytest.fixture
def opus(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> WebServer:
    monkeypatch.setenv("LIMBECK_OPUS_URL", web.url)
    return web


BOOKS = archive(de_en__de="eins\nzwei\r\ndrei\u2028vier\n", de_en__en="one\ntwo\nthree\n")
PAIR = "/OPUS-Books/v1/moses/de-en.txt.zip"


def test_a_parallel_corpus(step: DatasetStep, opus: WebServer) -> None:
    opus.put(PAIR, BOOKS)
    assert step.parallel("opus_Books/v1") == [("one", "eins"), ("two", "zwei"), ("three", "drei\u2028vier")]
    assert step.stats["origin"] == {"urls": [opus.url + PAIR], "members": ["Books.de-en.en", "Books.de-en.de"]}
    assert step.parallel("opus_Books/v1", languages=("de", "en"))[0] == ("eins", "one")


def test_a_corpus_whose_languages_are_not_sorted(step: DatasetStep, opus: WebServer) -> None:
    opus.put("/OPUS-Books/v1/moses/en-de.txt.zip", archive(en_de__de="eins\n", en_de__en="one\n"))
    assert step.parallel("opus_Books/v1") == [("one", "eins")]
    assert opus.requests == [PAIR, "/OPUS-Books/v1/moses/en-de.txt.zip"]


@pytest.mark.parametrize(("code", "language"), [("zh_TW", "zh_hant"), ("zh_cn", "zh"), ("sr", "sr_cyrl")])
def test_codes_of_older_corpora(step: DatasetStep, opus: WebServer, code: str, language: str) -> None:
    texts = {f"en_{code}__{code}": "一\n", f"en_{code}__en": "one\n"}
    opus.put(f"/OPUS-Books/v1/moses/en-{code}.txt.zip", archive(**texts))
    assert step.parallel("opus_Books/v1", languages=("en", language)) == [("one", "一")]


def test_a_sample_keeps_pairs(step: DatasetStep, opus: WebServer) -> None:
    numbers = range(1000)
    opus.put(
        PAIR,
        archive(
            de_en__de="".join(f"de {number}\n" for number in numbers),
            de_en__en="".join(f"en {number}\n" for number in numbers),
        ),
    )
    rows = step.parallel("opus_Books/v1", "--max-sentences", "50")
    assert len(rows) == 50 and all(en.split()[1] == de.split()[1] for en, de in rows)


def test_mono(step: DatasetStep, opus: WebServer) -> None:
    opus.put("/OPUS-Books/v1/mono/de.txt.gz", gzip.compress(b"eins\nzwei\n"))
    assert step.mono("opus_Books/v1") == ["eins", "zwei"]


def test_what_was_fetched_is_kept(
    step: DatasetStep, opus: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    opus.put("/OPUS-Books/v1/moses/en-de.txt.zip", archive(en_de__de="eins\n", en_de__en="one\n"))
    step.parallel("opus_Books/v1")
    opus.requests.clear()
    assert step.parallel("opus_Books/v1") == [("one", "eins")]
    assert opus.requests == []


def test_bad_archives(step: DatasetStep, opus: WebServer) -> None:
    opus.put(PAIR, BOOKS[:-40])
    with pytest.raises(UserError, match=r"de-en\.txt\.zip is not a sound zip archive"):
        step.parallel("opus_Books/v1")
    damaged = bytearray(archive(de_en__de="eins\n" * 99, de_en__en="one\n" * 99))
    damaged[damaged.index(b"Books.de-en.en") + 16] ^= 0xFF
    opus.put(PAIR, bytes(damaged))
    with pytest.raises(UserError, match=r"de-en\.txt\.zip is damaged in Books\.de-en\.en"):
        step.parallel("opus_Books/v1")
    opus.put(PAIR, archive(de_en__de="eins\n", de_en__en="one\ntwo\n"))
    with pytest.raises(UserError, match=r"2 lines in Books\.de-en\.en and 1 lines in Books\.de-en\.de"):
        step.parallel("opus_Books/v1")
    opus.put(PAIR, archive(de_en__de="eins\n"))
    with pytest.raises(UserError, match=r"name ends in \.en; it holds README, LICENSE, Books\.de-en\.de"):
        step.parallel("opus_Books/v1")
    assert not (step.folder / "out.en.zst").exists()


def test_text_that_is_not_utf8(step: DatasetStep, opus: WebServer) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("Books.de-en.de", "Öl\n".encode("latin-1"))
        file.writestr("Books.de-en.en", "oil\n")
    opus.put(PAIR, content.getvalue())
    with pytest.raises(UserError, match=r"Books\.de-en\.de of .* is not UTF-8"):
        step.parallel("opus_Books/v1")


def test_what_is_not_there(step: DatasetStep, opus: WebServer) -> None:
    with pytest.raises(
        UserError, match=r"opus_Books/v9 does not exist.*moses/de-en\.txt\.zip, .*moses/en-de\.txt\.zip"
    ):
        step.parallel("opus_Books/v9")
    with pytest.raises(UserError, match=r"does not exist for these languages: there is no file at .*mono/de\.txt\.gz"):
        step.mono("opus_Books/v1")
    with pytest.raises(UserError, match="must name a corpus and its version, as in opus_Books/v1"):
        step.parallel("opus_Books")
    opus.put(PAIR, opus.answer(b"", 503))
    with pytest.raises(TransientError, match="503"):
        step.parallel("opus_Books/v1")
