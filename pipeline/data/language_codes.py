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


def iso_codes(locale: Locale) -> tuple[str, ...]:
    """ISO 639-3 codes of a language: its own (of its standard variety), then macrolanguages and older codes."""
    return _ISO_CODES.get(locale.language, (locale.language,))


def script_of(locale: Locale) -> str:
    """The ISO 15924 script that a locale is written in, said or usual; Latin where nothing is known."""
    return locale.written_in or _SCRIPTS.get(locale.language, "Latn")


# ISO 639-1 (or what stands for it) -> ISO 639-3. Where a collection has the macrolanguage, another the variety that is
# meant by it (FLORES `zho`, HPLT `cmn`), both are listed.
_ISO_TABLE = """
af afr|am amh|ar arb ara|as asm|ay ayr aym|az azj aze|ba bak|be bel|bg bul|bm bam|bn ben|bo bod|br bre|bs bos hbs|ca cat
|cs ces|cv chv|cy cym|da dan|de deu|dz dzo|ee ewe|el ell|en eng|eo epo|es spa|et ekk est|eu eus|fa pes fas|ff fuv ful
|fi fin|fil fil tgl|fj fij|fo fao|fr fra|fy fry|ga gle|gd gla|gl glg|gn gug grn|gu guj|ha hau|he heb|hi hin|hr hrv hbs
|ht hat|hu hun|hy hye|id ind|ig ibo|is isl|it ita|ja jpn|jv jav|ka kat|kg kon|ki kik|kk kaz|km khm|kn kan|ko kor|ks kas
|ku kmr kur|ky kir|la lat|lb ltz|lg lug|li lim|ln lin|lo lao|lt lit|lv lvs lav|mg plt mlg|mi mri|mk mkd|ml mal
|mn khk mon|mr mar|ms zsm msa|mt mlt|my mya|nb nob nor|ne npi nep|nl nld|nn nno nor|ny nya|oc oci|om gaz orm|or ory ori
|pa pan|pl pol|ps pbt pus|pt por|qu quy que|rn run|ro ron|ru rus|rw kin|sa san|sc srd|sd snd|sg sag|si sin|sk slk|sl slv
|sm smo|sn sna|so som|sq als sqi|sr srp hbs|ss ssw|st sot|su sun|sv swe|sw swh swa|ta tam|te tel|tg tgk|th tha|ti tir
|tk tuk|tl fil tgl|tn tsn|tr tur|ts tso|tt tat|tw twi|ug uig|uk ukr|ur urd|uz uzn uzb|vi vie|wo wol|xh xho|yi ydd yid
|yo yor|zh cmn zho|zu zul
"""
_ISO_CODES = {entry.split()[0]: tuple(entry.split()[1:]) for entry in _ISO_TABLE.replace("\n", "").split("|")}
_SCRIPT_TABLE = {
    "Arab": "ar ckb fa ks ps sd ug ur",
    "Armn": "hy",
    "Beng": "as bn",
    "Cyrl": "ba be bg cv ky mk ru tg tt uk",
    "Deva": "awa bho hi mai mr ne sa",
    "Ethi": "am ti",
    "Geor": "ka",
    "Grek": "el",
    "Gujr": "gu",
    "Hang": "ko",
    "Hant": "yue",
    "Hebr": "he yi",
    "Jpan": "ja",
    "Khmr": "km",
    "Knda": "kn",
    "Laoo": "lo",
    "Mlym": "ml",
    "Mymr": "my shn",
    "Orya": "or",
    "Sinh": "si",
    "Taml": "ta",
    "Telu": "te",
    "Thai": "th",
    "Tibt": "bo dz",
}
_SCRIPTS = {language: script for script, languages in _SCRIPT_TABLE.items() for language in languages.split()}
