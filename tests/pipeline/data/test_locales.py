import pytest

from pipeline.data.locales import Locale, closeness, parse_locale


@pytest.mark.parametrize(
    ("tag", "locale"),
    [
        ("de", Locale("de")),
        ("pt-BR", Locale("pt", region="BR")),
        ("zh_hant", Locale("zh", "Hant")),
        ("zh_Hans_CN", Locale("zh", "Hans", "CN")),
        ("sr@latin", Locale("sr", "Latn")),
        ("sr@Cyrl", Locale("sr", "Cyrl")),
        ("de_DE.UTF-8", Locale("de", region="DE")),
        ("ca@valencia", Locale("ca", variant="valencia")),
        ("de_Informal", Locale("de", variant="informal")),
        ("es_419", Locale("es", region="419")),
        ("iw", Locale("he")),
        ("messages", None),
        ("d", None),
        ("", None),
    ],
)
def test_parse(tag: str, locale: Locale | None) -> None:
    assert parse_locale(tag) == locale


@pytest.mark.parametrize(
    ("wanted", "best_first", "never"),
    [
        ("de", ["de", "de_DE", "de_AT"], ["de_Informal", "nds", "en"]),
        ("de_DE", ["de_DE", "de"], ["de_AT"]),
        ("pt_BR", ["pt_BR"], ["pt", "pt_PT"]),
        ("pt_PT", ["pt_PT", "pt"], ["pt_BR"]),
        ("zh", ["zh", "zh_CN"], ["zh_TW", "zh_Hant", "zh_HK"]),
        ("zh_hant", ["zh_Hant", "zh_TW"], ["zh", "zh_CN", "zh_Hans"]),
        ("zh_TW", ["zh_TW", "zh_Hant"], ["zh_CN", "zh_HK", "zh"]),
        ("sr", ["sr", "sr_RS"], ["sr_Latn", "sr@latin"]),
        ("sr_cyrl", ["sr_Cyrl"], ["sr@latin"]),
        ("sr_latn", ["sr@latin"], ["sr"]),
        ("en_GB", ["en_GB"], ["en", "en_US"]),
    ],
)
def test_closeness(wanted: str, best_first: list[str], never: list[str]) -> None:
    def distance(tag: str) -> int:
        locale, found = parse_locale(wanted), parse_locale(tag)
        assert locale is not None and found is not None
        return closeness(locale, found)

    distances = [distance(tag) for tag in best_first]
    assert distances == sorted(distances) and min(distances) >= 0
    assert [tag for tag in never if distance(tag) >= 0] == []
