"""Language identification that forgives short, technical and closely related text (heliport, a HeLI port)."""

import logging
from functools import cache
from typing import Any

from pipeline.common.errors import UserError
from pipeline.common.languages import identifier_codes

_CANDIDATES = 12
_UNSEEN = 7.0  # HeLI's penalty for a word that a language has no n-gram of
_NO_LANGUAGE = frozenset({"zxx", "und"})  # no linguistic content; nothing recognised
_WIDELY_WRITTEN_CODES = """
afr ara aze bel ben bul cat ces cmn dan deu ell eng est eus fin fra glg guj hbs heb hin hun hye isl ita jpn
kan kat kaz kor lav lit mal mar mkd msa mya nep nld nno nob pan pes pol por ron rus sin slk slv spa sqi swa
swe tam tel tgl tha tur ukr urd uzn vie
"""
_WIDELY_WRITTEN = frozenset(_WIDELY_WRITTEN_CODES.split())

logger = logging.getLogger(__name__)


@cache
def _identifier() -> Any:
    from heliport import Identifier  # here, because its models take seconds and 150 MB

    logger.info("loading the language identifier")
    return Identifier()


class LanguageJudge:
    """Judges texts by one expected language.

    Raises UserError when the identifier does not know the language.
    """

    def __init__(self, language: str) -> None:
        identifier = _identifier()
        self._codes = frozenset(identifier_codes(language))
        if not self._codes & identifier.get_confidence_all().keys():
            raise UserError(
                f"the language identifier does not know {language!r}: switch its rule off for this data set with "
                'the cleaning rule "language": false'
            )
        self._fine = self._codes | _NO_LANGUAGE
        self._identify = identifier.identify
        self._identify_top = identifier.identify_topk_with_score

    def expected(self, text: str) -> bool:
        """Whether the expected language is the likeliest, or the text has no language."""
        return self._identify(text, True) in self._fine

    def excess(self, text: str) -> float:
        """How much likelier a widely written language is, in log10 probability per word (the mean that HeLI compares).

        Three times slower than `expected`. A graded answer lets a caller keep text between neighbours (German/Dutch,
        Danish/Norwegian) and lines full of names or code, which a bare "most likely language" would drop. Rarely
        written languages are no rivals: plain Russian or German segments are claimed by one or another of them.
        """
        best = self._identify_top(text, _CANDIDATES)  # (code, -log10 probability per word), best first
        rival = next((score for code, score in best if code in _WIDELY_WRITTEN and code not in self._codes), None)
        if rival is None:
            return 0.0
        expected = min((score for code, score in best if code in self._codes), default=_UNSEEN)
        return max(0.0, float(expected - rival))
