"""The codes that collections of corpora call our languages by: `zh_hant` is `zh_TW` of OPUS, `zho_Hant` of FLORES."""

from pipeline.common.errors import UserError
from pipeline.data.locales import Locale, closeness, parse_locale

# Regions by which OPUS's older corpora tell the scripts of Chinese.
_REGIONS_OF_CHINESE = {"Hans": ("CN",), "Hant": ("TW", "HK")}
# What OPUS writes after the language for a script, beside the script's own name.
_SUFFIXES_OF_SCRIPT = {"Latn": ("@latin", "@Latn"), "Cyrl": ("@cyrillic",)}
_OLDER_CODES = {"nb": ("no",), "he": ("iw",), "tl": ("fil",)}


def opus_codes(language: str) -> tuple[str, ...]:
    """Codes under which OPUS may have a language, the likeliest first: its corpora do not agree on them.

    Raises UserError when the text is not a language tag.
    """
    locale = read_locale(language)
    base = locale.language
    codes: list[str] = []
    if locale.region:
        codes += [f"{base}_{locale.region}", f"{base}_{locale.region.lower()}"]
    if closeness(locale, Locale(base)) >= 0:
        codes += [base, *_OLDER_CODES.get(base, ())]
    script = locale.written_in if locale.script or base == "zh" else None
    if script:
        codes += [f"{base}_{script}", f"{base}_{script.lower()}"]
        codes += [f"{base}{suffix}" for suffix in _SUFFIXES_OF_SCRIPT.get(script, ())]
        if base == "zh":
            for region in _REGIONS_OF_CHINESE.get(script, ()):
                codes += [f"zh_{region}", f"zh_{region.lower()}"]
    return tuple(dict.fromkeys(codes))


def read_locale(language: str) -> Locale:
    """The parts of a language tag of a config. Raises UserError when it is none."""
    locale = parse_locale(language)
    if locale is None:
        raise UserError(f"{language!r} is not a language tag such as de, pt_BR or zh_hant")
    return locale
