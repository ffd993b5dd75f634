import json
from typing import Any

import pytest
from web_server import WebServer

from pipeline.common.errors import TransientError, UserError
from pipeline.data.language_codes import opus_codes
from pipeline.data.opus_index import Corpus, find_corpora, find_mono


def entry(corpus: str, source: str, target: str, pairs: Any, size: Any, url: str = "") -> dict[str, Any]:
    """A corpus as the API describes it: sizes in KiB, unknown numbers empty, `latest` as text."""
    return {
        "alignment_pairs": pairs, "corpus": corpus, "documents": "", "id": 1, "latest": "True",
        "preprocessing": "moses" if target else "mono", "size": size, "source": source, "source_tokens": 9,
        "target": target, "target_tokens": 9, "url": url or f"https://host/OPUS-{corpus}/v1/moses/x.txt.zip",
        "version": "v1",
    }  # fmt: skip


@pytest.fixture
def api(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Answers the API's questions: `api("source=de&target=en&preprocessing=moses", entries)`."""
    monkeypatch.setenv("LIMBECK_OPUS_API", f"{web.url}/opusapi/")

    def answer(question: str, *entries: dict[str, Any]) -> None:
        web.put(f"/opusapi/?{question}&version=latest", json.dumps({"corpora": list(entries)}).encode())

    return answer


def test_corpora_of_a_pair(api: Any) -> None:
    api(
        "source=en&target=de&preprocessing=moses",
        entry("Books", "de", "en", 51467, 6000),
        entry("Europarl", "de", "en", "1959709", 190000),
        entry("Empty", "de", "en", "", None),
    )
    assert find_corpora("en", "de") == [
        Corpus("opus_Europarl/v1", 1959709, 190000 * 1024),
        Corpus("opus_Books/v1", 51467, 6000 * 1024),
        Corpus("opus_Empty/v1", None, None),
    ]


def test_every_code_of_a_language_is_asked_for(api: Any) -> None:
    for code in opus_codes("zh_hant"):
        found = {"zh_TW": [entry("GNOME", "en", "zh_TW", 10, 1)], "zh_Hant": [entry("HPLT", "en", "zh_Hant", 9, 1)]}
        found["zh_HK"] = [entry("GNOME", "en", "zh_HK", 2, 1)]
        api(f"source=en&target={code}&preprocessing=moses", *found.get(code, []))
    # GNOME is there twice: the importer reads zh_TW, which comes first, and so it is that one's size that counts.
    assert find_corpora("en", "zh_hant") == [Corpus("opus_GNOME/v1", 10, 1024), Corpus("opus_HPLT/v1", 9, 1024)]


def test_mono_counts_the_plain_text_only(api: Any) -> None:
    plain, tokenized = ("https://host/OPUS-Books/v1/mono/de" + end for end in (".txt.gz", ".tok.gz"))
    parallel = entry("Other", "de", "en", 5, 5, "https://host/OPUS-Other/v1/moses/de-en.txt.zip")
    api(
        "source=de&preprocessing=mono",
        entry("Books", "de", "", 7, 4, tokenized),
        entry("Books", "de", "", 6, 3, plain),
        parallel,
    )
    assert find_mono("de") == [Corpus("opus_Books/v1", 6, 3 * 1024)]


def test_a_pair_that_opus_does_not_have(api: Any) -> None:
    api("source=en&target=xx&preprocessing=moses")
    assert find_corpora("en", "xx") == []


def test_bad_answers(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMBECK_OPUS_API", f"{web.url}/opusapi/")
    with pytest.raises(UserError, match="does not exist: LIMBECK_OPUS_API"):
        find_mono("de")
    question = "/opusapi/?source=de&preprocessing=mono&version=latest"
    web.put(question, b"<html>maintenance</html>")
    with pytest.raises(TransientError, match="maintenance"):
        find_mono("de")
    web.put(question, web.answer(b"", 503))
    with pytest.raises(TransientError, match="503"):
        find_mono("de")
    with pytest.raises(UserError, match="not a language tag"):
        find_corpora("english", "de")


@pytest.mark.parametrize(
    ("language", "codes"),
    [
        ("de", "de"),
        ("zh", "zh zh_Hans zh_hans zh_CN zh_cn"),
        ("zh_hant", "zh_Hant zh_hant zh_TW zh_tw zh_HK zh_hk"),
        ("sr_cyrl", "sr sr_Cyrl sr_cyrl sr@cyrillic"),
        ("sr_latn", "sr_Latn sr_latn sr@latin sr@Latn"),
        ("pt_BR", "pt_BR pt_br"),
        ("pt-PT", "pt_PT pt_pt pt"),
        ("nb", "nb no"),
    ],
)
def test_codes_of_opus(language: str, codes: str) -> None:
    assert opus_codes(language) == tuple(codes.split())
