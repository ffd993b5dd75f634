"""Which public test sets have a language pair, known without asking anybody."""

import re
from dataclasses import dataclass, field

from pipeline.data.language_codes import iso_codes, read_locale, script_of
from pipeline.data.locales import Locale, closeness

# As many WMT test sets as are worth their time: the newest judge the result, those before them steer training.
_WMT_SETS = 4
# The languages of FLORES-200 by the scripts that it has them in.
_FLORES = {
    "Latn": "ace afr aka als arb ast ayr azj bam ban bem bjn bos bug cat ceb ces cjk crh cym dan deu dik dyu eng epo"
    " est eus ewe fao fij fin fon fra fur fuv gaz gla gle glg grn hat hau hrv hun ibo ilo ind isl ita jav kab kac kam"
    " kbp kea kik kin kmb kmr knc kon lij lim lin lit lmo ltg ltz lua lug luo lus lvs min mlt mos mri nld nno nob nso"
    " nus nya oci pag pap plt pol por quy ron run sag scn slk slv smo sna som sot spa srd ssw sun swe swh szl taq tgl"
    " tpi tsn tso tuk tum tur twi umb uzn vec vie war wol xho yor zsm zul",
    "Arab": "ace acm acq aeb ajp apc arb ars ary arz azb bjn ckb kas knc min pbt pes prs snd uig urd",
    "Cyrl": "bak bel bul kaz khk kir mkd rus srp tat tgk ukr",
    "Deva": "awa bho hin hne kas mag mai mar npi san",
    "Beng": "asm ben mni sat",
    "Ethi": "amh tir",
    "Hebr": "heb ydd",
    "Mymr": "mya shn",
    "Tfng": "taq tzm",
    "Tibt": "bod dzo",
    "Hant": "yue zho",
    "Armn": "hye", "Geor": "kat", "Grek": "ell", "Gujr": "guj", "Guru": "pan", "Hang": "kor", "Hans": "zho",
    "Jpan": "jpn", "Khmr": "khm", "Knda": "kan", "Laoo": "lao", "Mlym": "mal", "Orya": "ory", "Sinh": "sin",
    "Taml": "tam", "Telu": "tel", "Thai": "tha",
}  # fmt: skip


@dataclass
class EvaluationSets:
    """Data sets as a training config names them; no set is in both lists."""

    devtest: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)


def evaluation_sets(src: str, trg: str) -> EvaluationSets:
    """FLORES (dev to validate during training, devtest to judge the result), and the newest WMT test sets alike."""
    newest = [f"sacrebleu_{name}" for name in wmt_sets(src, trg)[:_WMT_SETS]]
    judging = (len(newest) + 1) // 2
    sets = EvaluationSets(devtest=newest[judging:], test=newest[:judging])
    if in_flores(src) and in_flores(trg):
        sets.devtest.insert(0, "flores_dev")
        sets.test.insert(0, "flores_devtest")
    return sets


def in_flores(language: str) -> bool:
    """Whether FLORES-200 has a language in the script that its tag says, or that is usual."""
    locale = read_locale(language)
    languages = _FLORES.get(script_of(locale), "").split()
    return any(code in languages for code in iso_codes(locale))


def wmt_sets(src: str, trg: str) -> list[str]:
    """WMT's yearly test sets of a pair in this direction that sacreBLEU knows, the newest first: `wmt24`."""
    from sacrebleu.dataset import DATASETS  # here, because it takes half a second

    pair = "-".join(code for code in (_plain_code(src), _plain_code(trg)) if code)
    names = [name for name in DATASETS if re.fullmatch(r"wmt\d\d", name) and pair in DATASETS[name].langpairs]
    return sorted(names, reverse=True)


def _plain_code(language: str) -> str | None:
    """The code without script and region, where that stands for this language: `zh` of `zh_hans`, not of `zh_hant`."""
    locale = read_locale(language)
    return locale.language if closeness(locale, Locale(locale.language)) >= 0 else None
