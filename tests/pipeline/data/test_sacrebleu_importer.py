import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from dataset_step import DatasetStep
from sacrebleu.dataset import DATASETS
from sacrebleu.dataset.plain_text import PlainTextDataset
from web_server import WebServer

from pipeline.common.errors import TransientError, UserError

ADDRESS = "/toy.tgz"


def archive() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as file:
        for name, text in {"toy/src.en": b"one\ntwo\n", "toy/ref.de": b"eins\nzwei\n", "toy/ref.zh": b"\n"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            file.addfile(info, io.BytesIO(text))
    return content.getvalue()


@pytest.fixture
def toy(web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A test set that sacreBLEU knows, of its own kind, which comes from our server and lies in our folder."""
    content = archive()
    test_set = PlainTextDataset(
        "toy",
        data=[web.put(ADDRESS, content)],
        description="for tests",
        md5=[hashlib.md5(content).hexdigest()],
        langpairs={"en-de": ["toy/src.en", "toy/ref.de"], "en-zh": ["toy/src.en", "toy/ref.zh"]},
    )
    test_set._outdir = str(tmp_path / "sacrebleu" / "toy")
    test_set._rawdir = str(tmp_path / "sacrebleu" / "toy" / "raw")
    monkeypatch.setitem(DATASETS, "toy", test_set)
    return test_set


def test_both_directions_fetched_once(step: DatasetStep, toy: Any, web: WebServer) -> None:
    assert step.parallel("sacrebleu_toy") == [("one", "eins"), ("two", "zwei")]
    assert step.stats["origin"] == {"test-set": "toy", "pair": "en-de", "reversed": False}
    assert step.parallel("sacrebleu_toy", languages=("de", "en")) == [("eins", "one"), ("zwei", "two")]
    assert step.stats["origin"]["reversed"] is True
    assert web.requests == [ADDRESS]


def test_what_a_killed_download_left_is_not_taken_for_the_test_set(
    step: DatasetStep, toy: Any, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.put(ADDRESS, web.answer(archive()[:50], announced=len(archive())))
    with pytest.raises(TransientError, match="attempts"):
        step.parallel("sacrebleu_toy")
    web.put(ADDRESS, archive())
    assert len(step.parallel("sacrebleu_toy")) == 2
    assert not list(Path(toy._rawdir).glob(".fetching-*"))


def test_another_file_than_expected(step: DatasetStep, toy: Any, web: WebServer) -> None:
    web.put(ADDRESS, b"a page that says sorry")
    with pytest.raises(UserError, match=r"toy\.tgz is not the file that sacreBLEU expects: MD5"):
        step.parallel("sacrebleu_toy")


def test_what_sacrebleu_does_not_have(step: DatasetStep, toy: Any) -> None:
    with pytest.raises(UserError, match=r"no test set 'wmt91'; it has .*wmt19"):
        step.parallel("sacrebleu_wmt91")
    with pytest.raises(UserError, match="does not have en-fr: it has en-de, en-zh"):
        step.parallel("sacrebleu_toy", languages=("en", "fr"))
    with pytest.raises(UserError, match="does not have en-zh_hant"):  # simplified is not traditional
        step.parallel("sacrebleu_toy", languages=("en", "zh_hant"))
    with pytest.raises(UserError, match="is parallel: it belongs under train, devtest or test"):
        step.mono("sacrebleu_toy")


def test_sides_of_unequal_length(step: DatasetStep, toy: Any) -> None:
    with pytest.raises(UserError, match="2 lines in en and 1 lines in zh"):
        step.parallel("sacrebleu_toy", languages=("en", "zh"))
