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
        ("opus_Books/v1", ("opus", "Books/v1")),
        ("opus_ELRC-1077-wikipedia_health/v1", ("opus", "ELRC-1077-wikipedia_health/v1")),
        ("sacrebleu_wmt19", ("sacrebleu", "wmt19")),
        ("flores_devtest", ("flores", "devtest")),
        ("flores_aug-inline-noise_devtest", ("flores", "devtest")),
        ("news-crawl_news.2021", ("news-crawl", "news.2021")),
        ("hplt_mono/v3.0", ("hplt", "mono/v3.0")),
        ("mtdata_Statmt-europarl-10-deu-eng", ("mtdata", "Statmt-europarl-10-deu-eng")),
        ("tmx_https://a.org/memory.tmx.gz", ("tmx", "https://a.org/memory.tmx.gz")),
    ],
)
def test_split(name: str, parts: tuple[str, str]) -> None:
    assert split_dataset(name) == parts


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gettxt_Django", "did you mean gettext_"),
        ("Django", "the importers are file_, flores_, gettext_, hplt_, .*, url_"),
        ("bouquet_dev", "bouquet is not supported.*url_ or file_"),
        ("newscrawl_news.2021", "did you mean news-crawl_"),
        ("gettext_", "names nothing"),
        ("opus_", "write opus_ and then a corpus and its version, such as Books/v1"),
        ("flores_aug-typo_devtest", "there is no augmentation 'typo'; there are title"),
        ("flores_aug-mix_", "names nothing to import after aug-mix_"),
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


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("opus_Books/v1", "opus_Books_v1_77f963"),
        ("sacrebleu_wmt19", "sacrebleu_wmt19"),
        ("news-crawl_news.2021", "news-crawl_news_2021_7f1af4"),
    ],
)
def test_names_in_files_stay_as_they_are(name: str, safe: str) -> None:
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
