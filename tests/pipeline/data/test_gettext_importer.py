import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import polib
import pytest

from pipeline.common.errors import TransientError, UserError
from pipeline.data.catalogues import is_symbolic, plural_forms
from pipeline.data.gettext_importer import open_source
from pipeline.data.source import Source

Rows = list[tuple[str, ...]]


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for installed distributions."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    return folder


@pytest.fixture
def index(web: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The web server as pip's only package index."""
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_CERT", "LIMBECK_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", f"{web.url}/simple")
    return web


def publish(index: Any, project: str, files: dict[str, bytes], json_api: bool = False) -> None:
    """Offer a project's files on the index, as HTML or as JSON."""
    links = []
    for name, data in files.items():
        index.put(f"/files/{name}", data)
        links.append((name, f"../../files/{name}", hashlib.sha256(data).hexdigest()))
    if json_api:
        entries = [{"filename": name, "url": url, "hashes": {"sha256": digest}} for name, url, digest in links]
        page = index.answer(
            json.dumps({"meta": {"api-version": "1.0"}, "name": project, "files": entries}).encode(),
            content_type="application/vnd.pypi.simple.v1+json",
        )
    else:
        anchors = "".join(f'<a href="{url}#sha256={digest}">{name}</a><br/>' for name, url, digest in links)
        page = index.answer(f"<!DOCTYPE html><html><body>{anchors}</body></html>".encode(), content_type="text/html")
    index.put(f"/simple/{project}/", page)


def read(rest: str, folder: Path, *languages: str) -> tuple[Rows, Source]:
    work = folder / f"work-{len(list(folder.iterdir()))}"
    work.mkdir()
    source = open_source(rest, languages or ("en", "de"), work)
    rows = list(source.rows)
    assert len(rows) == source.total
    return rows, source


def installed(packages: Path, make: Any, files: dict[str, bytes]) -> None:
    make.install(packages, "shop", "1.2", files)


def test_an_installed_distribution(packages: Path, tmp_path: Path, make: Any) -> None:
    german = {"Open file": "Datei öffnen", "Nothing": "", "Close": "Schließen"}
    installed(packages, make, {"shop/locale/de/LC_MESSAGES/shop.po": make.po(german)})
    rows, source = read("shop", tmp_path)
    assert rows == [("Open file", "Datei öffnen"), ("Close", "Schließen")]
    assert source.dropped == {"untranslated": 1}
    assert source.origin["version"] == "1.2" and source.origin["file"] == "installed"
    assert read("shop==1.2.0", tmp_path, "de", "en")[0][0] == ("Datei öffnen", "Open file")


def test_states_of_entries(packages: Path, tmp_path: Path, make: Any) -> None:
    file = make.catalogue({"Good": "Gut", "Same": "Gleich"})
    file.append(polib.POEntry(msgid="Unsure", msgstr="Unsicher", flags=["fuzzy"]))
    file.append(polib.POEntry(msgid="Old", msgstr="Alt", obsolete=True))
    file.append(polib.POEntry(msgid="Same", msgctxt="menu", msgstr="Gleich"))
    installed(packages, make, {"shop/locale/de/LC_MESSAGES/shop.po": make.po(file)})
    rows, source = read("shop", tmp_path)
    assert rows == [("Good", "Gut"), ("Same", "Gleich")]
    assert source.dropped == {"fuzzy": 1, "obsolete": 1, "duplicate": 1}


@pytest.mark.parametrize("kind", ["po", "mo"])
@pytest.mark.parametrize(
    ("language", "forms", "pairs"),
    [
        ("de", ["%d Datei", "%d Dateien"], [("%d file", "%d Datei"), ("%d files", "%d Dateien")]),
        ("ru", ["%d файл", "%d файла", "%d файлов"], [("%d file", "%d файл"), ("%d files", "%d файлов")]),
        ("ja", ["%d 個のファイル"], [("%d file", "%d 個のファイル"), ("%d files", "%d 個のファイル")]),
    ],
)
def test_plural_forms_are_never_mixed(
    packages: Path, tmp_path: Path, make: Any, kind: str, language: str, forms: list[str], pairs: Rows
) -> None:
    file = make.catalogue({}, language)
    file.append(polib.POEntry(msgid="%d file", msgid_plural="%d files", msgstr_plural=dict(enumerate(forms))))
    content = make.po(file) if kind == "po" else make.mo(file)
    installed(packages, make, {f"shop/locale/{language}/LC_MESSAGES/shop.{kind}": content})
    assert read("shop", tmp_path, "en", language)[0] == pairs


def test_plural_forms_of_headers() -> None:
    assert plural_forms("nplurals=2; plural=(n != 1);") == (0, 1)
    assert plural_forms("nplurals=2; plural=n>1;") == (0, 1)
    assert plural_forms("nplurals=1; plural=0;") == (0, 0)
    arabic = "n==0 ? 0 : n==1 ? 1 : n==2 ? 2 : n%100>=3 && n%100<=10 ? 3 : n%100>=11 ? 4 : 5"
    assert plural_forms(f"nplurals=6; plural={arabic};") == (1, 4)
    assert plural_forms("nplurals=2; plural=__import__('os');") == (0, -1)
    assert plural_forms("") == (0, -1)


def test_the_po_is_preferred_and_a_damaged_one_is_not(packages: Path, tmp_path: Path, make: Any) -> None:
    folder = "shop/locale/de/LC_MESSAGES"
    files = {f"{folder}/a.po": make.po({"Open": "Öffnen"}), f"{folder}/a.mo": make.mo({"Open": "Auf"})}
    files |= {f"{folder}/b.po": b'msgid "x\nmsgstr', f"{folder}/b.mo": make.mo({"Close": "Zu"})}
    installed(packages, make, files)
    rows, source = read("shop", tmp_path)
    assert rows == [("Open", "Öffnen"), ("Close", "Zu")]
    assert source.origin["catalogues-unreadable"] == [f"{folder}/b.po"]


def test_layouts(packages: Path, tmp_path: Path, make: Any) -> None:
    places = ["a/po/de.po", "b/locale/de/b.po", "c/i18n/c-de.po", "d/locale/de_DE/LC_MESSAGES/d.po", "e/api.po"]
    files = {place: make.po({f"Text of {place[0]}": f"Text von {place[0]}"}) for place in places}
    installed(packages, make, files)
    assert [src for src, _ in read("shop", tmp_path)[0]] == [f"Text of {letter}" for letter in "abcd"]


def test_the_closest_locale_of_each_catalogue(packages: Path, tmp_path: Path, make: Any) -> None:
    def place(tag: str, domain: str) -> str:
        return f"shop/locale/{tag}/LC_MESSAGES/{domain}.po"

    files = {place(tag, "one"): make.po({"One": f"Eins {tag}"}) for tag in ("de_AT", "de_DE", "de", "de_Informal")}
    files |= {place(tag, "two"): make.po({"Two": f"Zwei {tag}"}) for tag in ("de_AT", "de_DE")}
    files |= {place("sr@latin", "one"): make.po({"One": "Jedan"}), place("sr", "one"): make.po({"One": "Један"})}
    installed(packages, make, files)
    assert read("shop", tmp_path)[0] == [("One", "Eins de"), ("Two", "Zwei de_DE")]
    assert read("shop", tmp_path, "en", "sr_cyrl")[0] == [("One", "Један")]
    assert read("shop", tmp_path, "en", "sr_latn")[0] == [("One", "Jedan")]


def test_a_pair_without_english_joins_equal_messages(packages: Path, tmp_path: Path, make: Any) -> None:
    german = make.catalogue({"Open": "Öffnen", "Only German": "Nur Deutsch", "%s left": "%s links"})
    french = make.catalogue({"Open": "Ouvrir", "%s left": "reste"}, "fr")
    for file, context in ((german, "Tür auf"), (french, "Porte ouverte")):
        file.append(polib.POEntry(msgid="Open", msgctxt="door", msgstr=context))
    place = "shop/locale/{}/LC_MESSAGES/shop.po"
    installed(packages, make, {place.format("de"): make.po(german), place.format("fr"): make.po(french)})
    rows, source = read("shop", tmp_path, "fr", "de")
    assert rows == [("Ouvrir", "Öffnen"), ("Porte ouverte", "Tür auf")]
    assert source.dropped == {"placeholders": 1}


def test_symbolic_identifiers(packages: Path, tmp_path: Path, make: Any) -> None:
    german = make.catalogue({"label_open": "Öffnen", "label_close": "Schließen", "label_lost": "Weg"})
    german.append(polib.POEntry(msgid="help_add", msgstr="Fügt ${name} hinzu.", comment='Default: "Adds ${name}."'))
    german.append(polib.POEntry(msgid="Some text", msgstr="Ein Text", comment="Default: no remark"))
    english = make.catalogue({"label_open": "Open", "label_close": "Close", "label_lost": ""}, "en")
    place = "shop/locales/{}/LC_MESSAGES/shop.po"
    installed(packages, make, {place.format("de"): make.po(german), place.format("en"): make.po(english)})
    rows, source = read("shop", tmp_path)
    pairs = [
        ("Open", "Öffnen"),
        ("Close", "Schließen"),
        ("Adds ${name}.", "Fügt ${name} hinzu."),
        ("Some text", "Ein Text"),
    ]
    assert rows == pairs
    assert source.dropped == {"symbolic-id": 1}


def test_what_is_symbolic() -> None:
    for identifier in ("label_add", "plone.app.title", "heading:main_text", "Editing_dates"):
        assert is_symbolic(identifier)
    for text in ("Open", "e-mail", "C_onnect", "_File", "Sav_e all", "Really?", "and/or so", "No. 1"):
        assert not is_symbolic(text)


def test_mono(packages: Path, tmp_path: Path, make: Any) -> None:
    place = "shop/locale/{}/LC_MESSAGES/shop.po"
    german = {"Open": "Öffnen", "Close": "<b>Schließen</b>", "Untranslated": ""}
    installed(packages, make, {place.format("de"): make.po(german), place.format("fr"): make.po({"Open": "Ouvrir"})})
    assert read("shop", tmp_path, "de")[0] == [("Öffnen",), ("Schließen",)]
    assert read("shop", tmp_path, "en")[0] == [("Open",), ("Close",), ("Untranslated",)]


def test_a_language_that_is_not_shipped(packages: Path, tmp_path: Path, make: Any, index: Any) -> None:
    files = {f"shop/locale/{tag}/LC_MESSAGES/shop.po": make.po({"One": "x"}) for tag in ("fr", "pt_BR")}
    installed(packages, make, files)
    with pytest.raises(UserError, match="shop ships no message catalogue for en and de: it has fr, pt_BR"):
        read("shop", tmp_path)
    make.install(packages, "empty", "1.0", {})
    with pytest.raises(UserError, match="it has no catalogues at all"):
        read("empty", tmp_path)


@pytest.mark.parametrize("json_api", [False, True])
def test_a_wheel_from_the_index(tmp_path: Path, make: Any, index: Any, json_api: bool) -> None:
    def build(text: str) -> bytes:
        return bytes(
            make.wheel({"far/locale/de/LC_MESSAGES/far.mo": make.mo({"Hello": text}), "far/big.bin": b"0" * 99})
        )

    files = {f"far_away-{version}-py3-none-any.whl": build(f"Hallo {version}") for version in ("1.9", "1.10", "2.0rc1")}
    publish(index, "far-away", files, json_api)
    rows, source = read("Far.Away", tmp_path)
    assert rows == [("Hello", "Hallo 1.10")]
    assert source.origin["version"] == "1.10"
    assert source.origin["sha256"] == hashlib.sha256(files["far_away-1.10-py3-none-any.whl"]).hexdigest()
    assert read("far-away==1.9", tmp_path)[0] == [("Hello", "Hallo 1.9")]
    assert read("far-away==2.0rc1", tmp_path)[0] == [("Hello", "Hallo 2.0rc1")]
    with pytest.raises(UserError, match=r"far-away has no version 3.0.*newest are 1.9, 1.10, 2.0rc1"):
        read("far-away==3.0", tmp_path)


def test_a_source_archive_is_read_and_not_run(tmp_path: Path, make: Any, index: Any) -> None:
    files = {"far-1.0/po/de.po": make.po({"Hello": "Hallo"}), "far-1.0/setup.py": b"raise SystemExit('was run')"}
    publish(index, "far", {"far-1.0.tar.gz": make.sdist(files)})
    rows, source = read("far", tmp_path)
    assert rows == [("Hello", "Hallo")]
    assert source.origin["file"] == "far-1.0.tar.gz"


def test_catalogues_that_only_the_sources_have(tmp_path: Path, make: Any, index: Any) -> None:
    files = {
        "far-1.0-py3-none-any.whl": make.wheel({"far/__init__.py": b""}),
        "far-1.0.tar.gz": make.sdist({"far-1.0/po/de.po": make.po({"Hello": "Hallo"})}),
    }
    publish(index, "far", files)
    assert read("far", tmp_path)[0] == [("Hello", "Hallo")]


def test_another_version_than_the_installed_one(packages: Path, tmp_path: Path, make: Any, index: Any) -> None:
    place = "shop/locale/de/LC_MESSAGES/shop.po"
    installed(packages, make, {place: make.po({"One": "Installiert"})})
    publish(index, "shop", {"shop-9.0-py3-none-any.whl": make.wheel({place: make.po({"One": "Geholt"})})})
    assert read("shop", tmp_path)[0] == [("One", "Installiert")]
    assert read("shop==9.0", tmp_path)[0] == [("One", "Geholt")]


def test_the_cache(tmp_path: Path, make: Any, index: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    name = "far-1.0-py3-none-any.whl"
    publish(index, "far", {name: make.wheel({"far/po/de.po": make.po({"Hello": "Hallo"})})})
    for _ in range(2):
        assert read("far", tmp_path)[0] == [("Hello", "Hallo")]
    assert index.requests.count(f"/files/{name}") == 1
    (tmp_path / "cache" / "distributions" / name).write_bytes(b"damaged")
    assert read("far", tmp_path)[0] == [("Hello", "Hallo")]


def test_what_can_go_wrong_on_the_index(tmp_path: Path, make: Any, index: Any) -> None:
    with pytest.raises(UserError, match="no distribution named 'nowhere' is installed, or on the package index"):
        read("nowhere", tmp_path)
    publish(index, "far", {"far-1.0-py3-none-any.whl": b"not a zip"})
    with pytest.raises(UserError, match="not a sound wheel"):
        read("far", tmp_path)
    index.put("/files/far-1.0-py3-none-any.whl", b"something else")
    with pytest.raises(UserError, match="not the file its index promises"):
        read("far", tmp_path)
    index.put("/simple/far/", index.answer(b"", 503))
    with pytest.raises(TransientError, match="503"):
        read("far", tmp_path)


def test_withdrawn_files_are_for_those_who_name_them(tmp_path: Path, make: Any, index: Any) -> None:
    old, new = (make.wheel({"far/po/de.po": make.po({"Hello": text})}) for text in ("Alt", "Neu"))
    index.put("/files/far-1.0-py3-none-any.whl", old)
    index.put("/files/far-2.0-py3-none-any.whl", new)
    page = (
        b'<a href="/files/far-1.0-py3-none-any.whl">far-1.0-py3-none-any.whl</a>'
        b'<a href="/files/far-2.0-py3-none-any.whl" data-yanked="broken">far-2.0-py3-none-any.whl</a>'
    )
    index.put("/simple/far/", index.answer(page, content_type="text/html"))
    assert read("far", tmp_path)[0] == [("Hello", "Alt")]
    assert read("far==2.0", tmp_path)[0] == [("Hello", "Neu")]


def test_folders_of_links_and_file_indexes(
    tmp_path: Path, make: Any, index: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "far-1.0-py3-none-any.whl").write_bytes(make.wheel({"far/po/de.po": make.po({"Hello": "Hallo"})}))
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    assert read("far", tmp_path)[0] == [("Hello", "Hallo")]
    monkeypatch.delenv("PIP_FIND_LINKS")
    page = tmp_path / "simple" / "far" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text('<a href="../../wheels/far-1.0-py3-none-any.whl">far-1.0-py3-none-any.whl</a>')
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", (tmp_path / "simple").as_uri())
    assert read("far", tmp_path)[0] == [("Hello", "Hallo")]


@pytest.mark.parametrize("rest", ["Django>=4", "Django==", "Django==four", "../etc", "a b", "x==1==2"])
def test_names_that_are_none(tmp_path: Path, rest: str) -> None:
    with pytest.raises(UserError, match="gettext_"):
        read(rest, tmp_path)


def test_a_language_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'german' is not a language tag"):
        read("shop", tmp_path, "en", "german")
