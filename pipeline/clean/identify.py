"""Language identification that forgives short, technical and closely related text (heliport, a HeLI port)."""

import logging
from collections.abc import Callable
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


def language_judge(language: str) -> Callable[[str], float]:
    """A function that says how much likelier a text is in another language than in the expected one.

    In log10 probability per word (the mean that HeLI compares); 0 when the expected language is the likeliest, or the
    text has no language. A graded answer lets a caller keep text between dialects and neighbours (German/Swiss German,
    Danish/Norwegian) and lines full of names or code, which a bare "most likely language" would drop.

    Raises UserError when the identifier does not know the language.
    """
    identifier = _identifier()
    codes = frozenset(identifier_codes(language))
    if not codes & identifier.get_confidence_all().keys():
        raise UserError(
            f"the language identifier does not know {language!r}: switch its rule off for this data set with "
            'the cleaning rule "language": false'
        )
    identify, identify_top = identifier.identify, identifier.identify_topk_with_score
    fine = codes | _NO_LANGUAGE

    def excess(text: str) -> float:
        if identify(text, True) in fine:
            return 0.0
        best = identify_top(text, _CANDIDATES)  # (code, -log10 probability per word), best first
        expected = min((score for code, score in best if code in codes), default=_UNSEEN)
        return float(expected - best[0][1])

    return excess
