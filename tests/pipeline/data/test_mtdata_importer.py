import importlib.util
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from dataset_step import DatasetStep
from web_server import WebServer

from pipeline.common.errors import TransientError, UserError
from pipeline.data import mtdata_importer
from pipeline.data.probe import addresses, probe

needs_mtdata = pytest.mark.skipif(importlib.util.find_spec("mtdata") is None, reason="needs the extra mtdata")

# mtdata reads further entries from modules like this one in the current folder.
ENTRIES = """
from mtdata.entry import DatasetId, Entry

def load_all(index):
    for name in ("toy", "broken"):
        index += Entry(
            did=DatasetId(group="Toy", name=name, version="1", langs=("deu", "eng")),
            url="{url}/" + name + ".zip", in_paths=["toy.de", "toy.en"], in_ext="txt",
        )
"""


@pytest.fixture
def toy(web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WebServer:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("toy.de", "eins\nzwei\n")
        file.writestr("toy.en", "one\ntwo\n")
    web.put("/toy.zip", content.getvalue())
    (tmp_path / "mtdata_toy.py").write_text(ENTRIES.replace("{url}", web.url))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MTDATA", str(tmp_path / "cache"))
    mtdata_importer._index.cache_clear()
    return web


@needs_mtdata
@pytest.mark.slow  # mtdata builds its index of all that it knows, which takes it a quarter of a minute
def test_a_data_set_of_its_index(step: DatasetStep, toy: WebServer) -> None:
    assert step.parallel("mtdata_Toy-toy-1-deu-eng") == [("one", "eins"), ("two", "zwei")]
    assert step.stats["origin"]["id"] == "Toy-toy-1-deu-eng"
    assert addresses("mtdata_Toy-toy-1-deu-eng", ("en", "de")) == [(f"{toy.url}/toy.zip",)]
    assert probe("mtdata_Toy-toy-1-deu-eng", ("en", "de")) == len(toy.answers["/toy.zip"][0].body)
    with pytest.raises(UserError, match="Could not find Toy-toy-2-deu-eng"):
        step.parallel("mtdata_Toy-toy-2-deu-eng")
    with pytest.raises(UserError, match="no data set 'Toy-toy-2-deu-eng'; for the pair it has Toy-toy-1-deu-eng"):
        addresses("mtdata_Toy-toy-2-deu-eng", ("en", "de"))
    with pytest.raises(UserError, match="mtdata failed"):
        step.parallel("mtdata_Toy-broken-1-deu-eng")


@pytest.mark.parametrize(
    ("dataset", "languages", "says"),
    [
        ("mtdata_Statmt-europarl", ("en", "de"), "must be an id of mtdata's index, as in mtdata_Statmt-europarl-10"),
        ("mtdata_Statmt-europarl-10-deu-eng", ("en", "fr"), "is of the pair deu-eng, not en-fr"),
        ("mtdata_OPUS-gnome-v1-eng-zho_CN", ("en", "zh_hant"), "is of the pair eng-zho_CN, not en-zh_hant"),
        ("mtdata_Statmt-europarl-10-deu-eng", ("de",), "is parallel"),
    ],
)
def test_names_are_checked_before_mtdata_is_asked(dataset: str, languages: tuple[str, ...], says: str) -> None:
    with pytest.raises(UserError, match=says):
        addresses(dataset, languages)


def test_without_mtdata(step: DatasetStep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs mtdata, which is not installed: pip install 'limbeck\[mtdata\]'"):
        step.parallel("mtdata_Statmt-europarl-10-deu-eng")


@pytest.mark.parametrize(
    ("code", "language", "same"),
    [("deu", "de", True), ("zho_TW", "zh_hant", True), ("zho", "zh", True), ("zho_TW", "zh", False),
     ("srp_Latn", "sr_latn", True), ("por_BR", "pt", True), ("ekk", "et", True), ("eng", "de", False)],
)  # fmt: skip
def test_codes_of_mtdata(code: str, language: str, same: bool) -> None:
    assert mtdata_importer._is_in(code, mtdata_importer.read_locale(language)) is same


def test_what_may_pass(step: DatasetStep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Errors of the network, as mtdata's command reports them on its last line."""
    module = tmp_path / "mtdata" / "__main__.py"
    module.parent.mkdir()
    (tmp_path / "mtdata" / "__init__.py").write_text("")
    monkeypatch.chdir(tmp_path)  # `python -m` looks here first
    monkeypatch.setattr("importlib.util.find_spec", lambda name: Any)
    module.write_text("raise SystemExit('requests.exceptions.ConnectionError: Max retries exceeded with url: /x')")
    with pytest.raises(TransientError, match="Max retries"):
        step.parallel("mtdata_Statmt-europarl-10-deu-eng")
    module.write_text("raise SystemExit('Error: no such thing')")
    with pytest.raises(UserError, match="no such thing"):
        step.parallel("mtdata_Statmt-europarl-10-deu-eng")
    module.write_text("pass")
    with pytest.raises(UserError, match=r"mtdata wrote no .*\.eng and no .*\.deu"):
        step.parallel("mtdata_Statmt-europarl-10-deu-eng")
