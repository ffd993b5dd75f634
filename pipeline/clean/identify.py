"""Language identification that forgives short, technical and closely related text (heliport, a HeLI port)."""

import logging
from functools import cache
from typing import Any

from pipeline.clean.languages import identifier_codes
from pipeline.common.errors import UserError

_CANDIDATES = 12
_UNSEEN = 7.0  # HeLI's penalty for a word that a language has no n-gram of
_NO_LANGUAGE = frozenset({"zxx", "und"})  # no linguistic content; nothing recognised

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
        """How much likelier another language is, in log10 probability per word (the mean that HeLI compares), or 0.

        Three times slower than `expected`. A graded answer lets a caller keep text between dialects and neighbours
        (German/Swiss German, Danish/Norwegian) and lines full of names or code, which a bare "most likely language"
        would drop.
        """
        best = self._identify_top(text, _CANDIDATES)  # (code, -log10 probability per word), best first
        if best[0][0] in self._fine:
            return 0.0
        expected = min((score for code, score in best if code in self._codes), default=_UNSEEN)
        return float(expected - best[0][1])
