import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.common.errors import UserError
from pipeline.data.names import sanitize, split_dataset


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("gettext_Django", ("gettext", "Django")),
        ("gettext_plone.app.locales==7.0.4", ("gettext", "plone.app.locales==7.0.4")),
        ("url_https://a.org/b_c/[LANG].zst", ("url", "https://a.org/b_c/[LANG].zst")),
        ("file_data/my_corpus.[LANG].gz", ("file", "data/my_corpus.[LANG].gz")),
    ],
)
def test_split(name: str, parts: tuple[str, str]) -> None:
    assert split_dataset(name) == parts


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gettxt_Django", "did you mean gettext_"),
        ("Django", "the importers are file_, gettext_, url_"),
        ("opus_Books/v1", "opus is not supported.*url_ or file_"),
        ("news-crawl_news.2021", "news-crawl is not supported"),
        ("gettext_", "names nothing"),
        ("gettext_aug-mix_Django", "augmentation.*not support"),
        ("url_aug-typos_https://a.org/[LANG]", "augmentation"),
    ],
)
def test_bad_names(name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        split_dataset(name)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("gettext_Django", "gettext_Django"),
        ("gettext_Django==5.2.19", "gettext_Django_5_2_19"),
        ("gettext_plone.app.locales", "gettext_plone_app_locales"),
    ],
)
def test_plain_names_stay_readable(name: str, safe: str) -> None:
    assert sanitize(name) == safe


def test_files_are_named_by_their_stem_and_told_apart() -> None:
    one, two = (sanitize(f"url_https://{host}/corpus.[LANG].zst?x=1") for host in ("a.org", "b.org"))
    assert one != two
    assert re.fullmatch(r"url_corpus_[0-9a-f]{6}", one)
    assert re.fullmatch(r"file_corpus_[0-9a-f]{6}", sanitize("file_~/x/[LANG]"))
    assert re.fullmatch(r"file_train_[0-9a-f]{6}", sanitize("file_../en-de/train.[LANG].txt.gz"))


@given(st.text(), st.text())
def test_any_name_becomes_safe_and_differs(one: str, two: str) -> None:
    for importer in ("gettext_", "url_", "file_", "opus_", ""):
        safe = sanitize(importer + one)
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,60}", safe)
        if importer in ("url_", "file_", "opus_") and one != two:
            assert safe != sanitize(importer + two)


def test_the_module_needs_no_dependency() -> None:
    code = "import sys; before = set(sys.modules); import pipeline.data.names; print(sorted(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("requests", "polib", "zstandard", "numpy", "packaging"):
        assert f"'{heavy}'" not in loaded
