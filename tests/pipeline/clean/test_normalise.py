import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clean.normalise import is_damaged, normalise


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        ("Save as…", "Save as…"),
        ("  two   spaces ", "two spaces"),
        ("tab\tand\u00a0no-break\u3000wide", "tab and no-break wide"),
        ("line\u2028separator\rreturn", "line separator return"),
        ("bell\x07 null\x00", "bell null"),
        ("soft\u00adhyphen zero\u200bwidth\ufeff", "softhyphen zerowidth"),
        ("Ko\u0308nig", "König"),
        ("fÃ¼r GrÃ¶ÃŸe", "für Größe"),
        ("â€œquotedâ€\x9d", "“quoted”"),
        ("Â© 2020", "© 2020"),
        ("ÐŸÑ€Ð¸Ð²ÐµÑ‚", "Привет"),
        ("æ–‡å\xad—", "文字"),
        ("Windows \x93quotes\x94", "Windows “quotes”"),
        ("ï»¿first", "first"),
        ("می\u200cخواهم", "می\u200cخواهم"),  # Persian: the joiner separates two morphemes
        ("no\u200cjoiner", "nojoiner"),
        ("", ""),
    ],
)
def test_one_spelling(raw: str, wanted: str) -> None:
    assert normalise(raw) == wanted


@pytest.mark.parametrize(
    "text", ["Das „Ä“ und das „Ö“", "«café» voilà\u202f!", "NÃO É MÃE", "ÅÄÖ", "Où ça ?", "Straße“", "Ñandú", "Ærø"]
)
def test_ordinary_letters_are_no_mojibake(text: str) -> None:
    assert normalise(text) == text.replace("\u202f", " ")
    assert not is_damaged(text)


@pytest.mark.parametrize("text", ["R\ufffdckgabe", "logo \uf8ff", "broken â€ quote", "ï¿½"])
def test_what_is_lost_is_damaged(text: str) -> None:
    assert is_damaged(normalise(text))


SCRAMBLED = st.text() | st.text(alphabet="ÃÂâ€Ä¼\xa0 \u200b\u200c\u0308aоÐŸÑ€é«»\x93\xad", max_size=12)


@given(SCRAMBLED)
def test_idempotent_and_clean(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert once == " ".join(once.split())
    assert not any(unicodedata.category(char) in ("Cc", "Zl", "Zp") for char in once)


@given(st.text(alphabet=st.characters(min_codepoint=0xA1, max_codepoint=0x24F, categories=("L",)), min_size=1))
def test_double_encoding_never_survives_unnoticed_when_it_can_be_undone(text: str) -> None:
    # Latin text read as Windows-1252 once too often comes back, or was ordinary text to begin with.
    try:
        mangled = unicodedata.normalize("NFC", text).encode().decode("cp1252")
    except UnicodeDecodeError:
        return
    assert normalise(normalise(mangled)) == normalise(mangled)
