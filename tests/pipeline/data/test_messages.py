from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.data.messages import placeholders, sentences


@pytest.mark.parametrize(
    ("english", "german", "rows"),
    [
        ("Save  as\tfile", " Als Datei  sichern\u00a0", [("Save as file", "Als Datei sichern")]),
        # accelerators
        ("&Open File", "Datei ö&ffnen", [("Open File", "Datei öffnen")]),
        ("E&xit", "Beenden", [("Exit", "Beenden")]),
        ("_Add Label", "Füge L_abel hinzu", [("Add Label", "Füge Label hinzu")]),
        ("_OK", "_OK", [("OK", "OK")]),
        ("Save && Quit", "Sichern && Beenden", [("Save & Quit", "Sichern & Beenden")]),
        ("Q&A and R&D", "Q&A und F&E", [("Q&A and R&D", "Q&A und F&E")]),
        ("Quit & Save", "Beenden & Sichern", [("Quit & Save", "Beenden & Sichern")]),
        ("File (&F)", "Datei (_D)", [("File", "Datei")]),
        ("Set the snake_case name", "Setze snake_case", [("Set the snake_case name", "Setze snake_case")]),
        ("See a.org/?a=1&b=2", "Siehe a.org/?x=1&y=2", [("See a.org/?a=1&b=2", "Siehe a.org/?x=1&y=2")]),
        ("Use %(my_name)s", "%(my_name)s verwenden", [("Use %(my_name)s", "%(my_name)s verwenden")]),
        # markup
        ("A <b>bold</b> &amp; new", "<b>Fett</b> &amp; neu", [("A bold & new", "Fett & neu")]),
        ("<p>One.</p><p>Two.</p>", "<p>Eins.</p><p>Zwei.</p>", [("One.", "Eins."), ("Two.", "Zwei.")]),
        ("One<br>Two", "Eins<br>Zwei", [("One", "Eins"), ("Two", "Zwei")]),
        ("<b>Title</b><br/>Text", "<b>Titel</b><br/>Text", [("Title", "Titel"), ("Text", "Text")]),
        ("Click <1>here</1>", "Klick <1>hier</1>", [("Click here", "Klick hier")]),
        ("Name <unknown>", "Name <unbekannt>", [("Name <unknown>", "Name <unbekannt>")]),
        ("if a < b then", "wenn a < b dann", [("if a < b then", "wenn a < b dann")]),
        ("&regular text", "&normaler Text", [("regular text", "normaler Text")]),
        # lines and paragraphs
        ("A line\nis broken", "Die Zeile\nist umbrochen", [("A line is broken", "Die Zeile ist umbrochen")]),
        ("One.\r\n\r\nTwo.", "Eins.\n \nZwei.", [("One.", "Eins."), ("Two.", "Zwei.")]),
        ("One.\nTwo.", "Eins.\nZwei.", [("One.", "Eins."), ("Two.", "Zwei.")]),
        ("List:\n- one\n- two", "Liste:\n* eins\n* zwei", [("List:", "Liste:"), ("one", "eins"), ("two", "zwei")]),
        ("\nOne\n", "Eins", [("One", "Eins")]),
        # placeholders
        ("50 % of {count} files", "50 % von {count} Dateien", [("50 % of {count} files", "50 % von {count} Dateien")]),
        ("100% sure", "100% sicher", [("100% sure", "100% sicher")]),
        ("%1 by %2", "%2: %1 von", [("%1 by %2", "%2: %1 von")]),
    ],
)  # fmt: skip
def test_pairs(english: str, german: str, rows: list[tuple[str, str]]) -> None:
    assert sentences((english, german)) == (rows, Counter())


@pytest.mark.parametrize(
    ("english", "german", "reason"),
    [
        ("%(name)s is here", "%(nam)s ist da", "placeholders"),
        ("%s of %s files", "%s Dateien", "placeholders"),
        ("{name} is here", "{Name} ist da", "placeholders"),
        ("Hello ${user}", "Hallo ${benutzer}", "placeholders"),
        ("{{ a }} here", "{{ b }} hier", "placeholders"),
        ("100%% sure", "100% sicher", "placeholders"),
        ("<b>bold</b> word", "fettes Wort", "tags"),
        ("<em>one</em> word", "<b>ein</b> Wort", "tags"),
        ("One.\n\nTwo.", "Eins. Zwei.", "paragraphs"),
        ("%s: %d", "%s: %d", "empty"),
        ("...", "…", "empty"),
        ("", "Text", "paragraphs"),
        ("<br>", "<br>", "empty"),
        ("&#37;s text", "Text", "placeholders"),
    ],
)
def test_left_out(english: str, german: str, reason: str) -> None:
    assert sentences((english, german)) == ([], Counter([reason]))


def test_a_part_with_a_fault_leaves_the_others() -> None:
    rows, dropped = sentences(("<p>See %s.</p><p>Fine.</p>", "<p>Siehe.</p><p>Gut.</p>"))
    assert rows == [("Fine.", "Gut.")]
    assert dropped == {"placeholders": 1}


def test_one_side_alone() -> None:
    assert sentences(("<b>_Datei</b> &ouml;ffnen\nund %s",)) == ([("Datei öffnen und %s",)], Counter())


MARKS = "Datei|E&xit|_File|a_b|%s|%(x_y)s|{n}|{|}|%|%%|${u}|<b>|</b>|<p>|<br/>|&amp;|&lt;|&#37;|&#10;|&#123;|&&|&|s|0|."
SPACES = ["\n", "\n\n", "\n- ", "\r\n", "\t", " ", "\x85", "\u2028"]
PIECES = st.sampled_from([*MARKS.split("|"), *SPACES])
TEXTS = st.lists(PIECES | st.characters(exclude_categories=["Cs"]), max_size=12).map("".join)


@given(TEXTS, TEXTS)
@example("a&#10;b", "a b")
@example("%<b></b>s a", "%<b></b>d a")
def test_rows_are_always_clean(one: str, two: str) -> None:
    for pair in ((one, two), (one, one), (two + one, two + one + " x")):
        rows, dropped = sentences(pair)
        assert rows or dropped
        for row in rows:
            assert len(row) == 2
            assert placeholders(row[0]) == placeholders(row[1])
            for text in row:
                assert text and text == " ".join(text.split())
                assert not set(text) & set("\n\r\t\v\f\x85\u2028")


@given(TEXTS)
def test_equal_sides_stay_equal(text: str) -> None:
    assert all(one == two for one, two in sentences((text, text))[0])
