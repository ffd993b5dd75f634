import pytest

from pipeline.clean.checks import PairCheck, SideCheck
from pipeline.clean.normalise import normalise
from pipeline.clean.rules import rules_for
from pipeline.common.errors import UserError
from pipeline.common.identify import LanguageJudge
from pipeline.common.languages import _CODES, identifier_codes

NO_LID = {"language": False}


@pytest.fixture(scope="module")
def en_de() -> PairCheck:
    return PairCheck("en", "de", {})


@pytest.mark.parametrize(
    ("src", "trg"),
    [
        ("Save as…", "Speichern unter…"),
        ("OK", "OK"),
        ("Version", "Version"),
        ("Cancel", "Abbrechen"),
        ("Undo", "Rückgängig machen"),
        ("%d files", "%d Dateien"),
        ("Could not open “%s”: %s", "„%s“ konnte nicht geöffnet werden: %s"),
        ("Selected: $1, $2", "Ausgewählt: $1, $2"),
        ("He ate ten apples.", "Er hat 10 Äpfel gegessen."),
        ("It begins at 8 pm.", "Es beginnt um 20 Uhr."),
        ("It costs 1,031,514 dollars.", "Es kostet 1.031.514 Dollar."),
        ("Written by %s, %s, and %s.", "Geschrieben von %s, %s und %s."),
        ("See https://example.com/en/ for more.", "Mehr unter https://example.com/de/."),
        ("The cat sat on the mat.", "Die Katze saß auf der Matte."),
    ],
)
def test_good_pairs_stay(en_de: PairCheck, src: str, trg: str) -> None:
    assert en_de.fault(src, trg) is None


@pytest.mark.parametrize(
    ("rule", "src", "trg"),
    [
        ("empty", "", "Etwas"),
        ("empty", "Something", ""),
        ("mojibake", "Return value", "R\ufffdckgabewert"),
        ("max-words", "word " * 151 + "end", "Wort"),
        ("max-word-length", "x" * 81 + " is a word", "ist ein Wort"),
        ("alphabetic-words", "7.3.0", "7.3.0"),
        ("alphabetic-words", "1 2 3 4 five", "1 2 3 4 fünf"),
        ("alphabetic-characters", "0x0066", "0x0066"),
        ("alphabetic-words", "Привет, как дела сегодня?", "Hallo, wie geht es heute?"),
        (
            "repeated-text",
            "Images missing images missing images missing images missing images missing",
            "Bilder fehlen",
        ),
        ("repeated-text", "I said", "Ich sagte nein nein nein nein nein"),
        ("length-ratio", "Parameters", "Wählen Sie eine Datei, um das ganze Projekt darin zu speichern"),
        ("number-mismatch", "Returns up to 250 results.", "Liefert bis zu 1000 Ergebnisse."),
        ("number-mismatch", "Comment on access", "Gilt für Access 2013"),
        ("url-mismatch", "Your emails, please", "Adresse: kde@example.org"),
        ("url-mismatch", "Report bugs to the authors.", "Fehler bitte an https://example.org/bugs"),
        ("copied-text", "Show open tasks", "show open Tasks"),
        ("copied-text", "a b c d e f g h i one", "a b c d e f g h i eins"),
        ("language", "The author does not know any case.", "L'auteur ne connaît pas de cas."),
        ("language", "Mein Hund mag es im Schnee zu tollen.", "My dog likes to romp in the snow."),
        ("language", "Show border", "Afficher la bordure"),
    ],
)
def test_each_rule_removes_its_kind(en_de: PairCheck, rule: str, src: str, trg: str) -> None:
    assert en_de.fault(normalise(src), normalise(trg)) == rule


def test_a_rule_switched_off_removes_nothing() -> None:
    src, trg = "Show open tasks", "Show open tasks"
    assert PairCheck("en", "de", {**NO_LID, "copied-text": False}).fault(src, trg) is None


@pytest.mark.parametrize(
    ("language", "src", "trg"),
    [
        ("zh", "I do not know what I should do now.", "我不知道我现在应该做什么。"),
        ("ja", "This is a Japanese sentence about the weather.", "これは天気についての日本語の文章です。"),
        ("th", "This is a sentence in the Thai language.", "นี่คือประโยคภาษาไทยที่เกี่ยวกับสภาพอากาศ"),
        ("ru", "You can change the behaviour of an element.", "Вы можете изменить поведение элемента."),
        ("ar", "This is an Arabic sentence of 25 words.", "هذه جملة باللغة العربية من ٢٥ كلمة"),
        ("hi", "This is a sentence in the Hindi language.", "यह हिन्दी भाषा में एक वाक्य है।"),
        ("ko", "This is a sentence in Korean.", "이것은 한국어로 된 문장입니다."),
        ("el", "This is a sentence in Greek.", "Αυτή είναι μια πρόταση στα ελληνικά."),
        ("no", "I do not know what I should do now.", "Jeg vet ikke hva jeg skal gjøre nå."),
        ("pt-BR", "I do not know what I should do now.", "Eu não sei o que devo fazer agora."),
        ("sr", "This is a sentence in Serbian.", "Ово је реченица на српском језику."),
    ],
)
def test_other_scripts_stay(language: str, src: str, trg: str) -> None:
    assert PairCheck("en", language, {}).fault(normalise(src), normalise(trg)) is None


@pytest.mark.parametrize(
    ("rule", "trg"),
    [
        ("max-words", "".join("天地玄黄宇宙洪荒"[i % 8] for i in range(301))),
        ("alphabetic-words", "。！？、…"),
        ("repeated-text", "我喜欢你" * 9),
        ("language", "これは天気についての日本語の文章です。"),
        ("length-ratio", "好" * 3),
    ],
)
def test_rules_without_spaces(rule: str, trg: str) -> None:
    src = "I do not know what I should do now, so I had better ask somebody who does."
    assert PairCheck("en", "zh", {}).fault(src, trg) == rule


def test_native_digits_count_as_numbers() -> None:
    check = PairCheck("en", "fa", NO_LID)
    assert check.fault("There were 1250 people.", "۱۲۵۰ نفر آنجا بودند.") is None
    assert check.fault("There were 1250 people.", "۹۸۷۶ نفر آنجا بودند.") == "number-mismatch"


def test_huge_numbers_do_not_break_the_comparison() -> None:
    check = PairCheck("en", "de", {**NO_LID, "max-word-length": False, "alphabetic-characters": False})
    assert check.fault("number " + "1" * 5000, "Zahl " + "2" * 5000) == "number-mismatch"


def test_unknown_language_says_how_to_go_on() -> None:
    with pytest.raises(UserError, match=r"does not know 'xx'.*\"language\": false"):
        SideCheck("xx", rules_for("xx", {}))
    assert SideCheck("xx", rules_for("xx", NO_LID)).fault("Some text") is None


def test_every_listed_language_is_known_to_the_identifier() -> None:
    from pipeline.common.identify import _identifier

    known = _identifier().get_confidence_all().keys()
    unknown = {language for language in _CODES if not known & set(identifier_codes(language))}
    assert not unknown


def test_a_neighbour_is_little_likelier() -> None:
    judge = LanguageJudge("de")
    assert judge.excess("Name des Schemas") < 1.5
    assert judge.excess("The author does not know of any such case.") > 1.5
    assert judge.excess("12345") == 0
    assert judge.expected("12345")
    assert not judge.expected("The author does not know of any such case.")
