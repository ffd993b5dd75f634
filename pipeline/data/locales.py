"""Language tags as message catalogues and configs write them: `de`, `de_DE`, `pt-BR`, `zh_Hans`, `sr@latin`."""

import re
from dataclasses import dataclass

_ALIASES = {"iw": "he", "in": "id", "ji": "yi", "no": "nb", "cmn": "zh", "jp": "ja"}
_SCRIPT_NAMES = {"latin": "Latn", "cyrillic": "Cyrl", "arabic": "Arab", "simplified": "Hans", "traditional": "Hant"}
# The script of a language that is written in several, where its tag names none.
_USUAL_SCRIPT = {"zh": "Hans", "sr": "Cyrl", "az": "Latn", "uz": "Latn", "mn": "Cyrl", "kk": "Cyrl", "pa": "Guru"}
_SCRIPT_OF_REGION = {("zh", region): "Hant" for region in ("TW", "HK", "MO")}
# The region that a language without a region stands for, where it is not called like the language.
_USUAL_REGION = {
    "ar": "EG", "be": "BY", "bn": "BD", "ca": "ES", "cs": "CZ", "cy": "GB", "da": "DK", "el": "GR", "en": "US",
    "et": "EE", "eu": "ES", "fa": "IR", "ga": "IE", "gl": "ES", "he": "IL", "hi": "IN", "hy": "AM", "ja": "JP",
    "ka": "GE", "kk": "KZ", "ko": "KR", "ms": "MY", "nb": "NO", "nn": "NO", "sl": "SI", "sq": "AL", "sr": "RS",
    "sv": "SE", "ta": "IN", "te": "IN", "uk": "UA", "ur": "PK", "vi": "VN", "zh": "CN",
}  # fmt: skip
_TAG = re.compile(
    r"(?P<language>[A-Za-z]{2,3})"
    r"(?:[-_](?P<script>[A-Za-z]{4}))?"
    r"(?:[-_](?P<region>[A-Za-z]{2}|\d{3}))?"
    r"(?:\.[A-Za-z0-9-]+)?"  # an encoding: de_DE.UTF-8
    r"(?:[-_@](?P<variant>[A-Za-z0-9]{3,}))?"
)


@dataclass(frozen=True)
class Locale:
    """A language, with script, region and variant where the tag names them."""

    language: str
    script: str | None = None
    region: str | None = None
    variant: str | None = None

    @property
    def is_source_english(self) -> bool:
        """Whether this is the language that messages are written in: English, not that of another country."""
        return self.language == "en" and self.region in (None, "US") and self.variant is None

    @property
    def written_in(self) -> str | None:
        """The script, said or usual; None when the language has one only."""
        return (
            self.script or _SCRIPT_OF_REGION.get((self.language, self.region or "")) or _USUAL_SCRIPT.get(self.language)
        )


def parse_locale(tag: str) -> Locale | None:
    """The parts of a tag; None when the text is not one."""
    match = _TAG.fullmatch(tag)
    if match is None:
        return None
    language = match["language"].lower()
    script, region, variant = match["script"], match["region"], match["variant"]
    if variant and (named := _SCRIPT_NAMES.get(variant.lower()) or _as_script(variant)) and not script:
        script, variant = named, None
    return Locale(
        _ALIASES.get(language, language),
        script.title() if script else None,
        region.upper() if region else None,
        variant.lower() if variant else None,
    )


def closeness(wanted: Locale, found: Locale) -> int:
    """How well a catalogue's locale serves: 0 is the very one, larger is further, -1 is another language or script.

    A wanted region is served by that region, or by the bare language where that stands for the region (`pt` for
    `pt_PT`, not for `pt_BR`). Without a wanted region the bare language is best, then its usual region, then others.
    """
    if wanted.language != found.language or wanted.variant != found.variant:
        return -1
    if None not in (wanted.written_in, found.written_in) and wanted.written_in != found.written_in:
        return -1
    if wanted.region == found.region:
        return 0
    usual = _USUAL_REGION.get(wanted.language, wanted.language.upper())
    if wanted.region is None:
        return 1 if found.region == usual else 2
    if found.region is None and (wanted.region == usual or wanted.language == "zh"):
        return 1
    return -1


def _as_script(variant: str) -> str | None:
    return variant.title() if variant.lower() in ("latn", "cyrl", "arab", "hans", "hant", "deva") else None
