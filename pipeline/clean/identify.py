"""Language identification that forgives short, technical and closely related text (heliport, a HeLI port)."""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

from pipeline.clean.languages import identifier_codes
from pipeline.common.errors import UserError

_CANDIDATES = 12
_NO_LANGUAGE = frozenset({"zxx", "und"})  # no linguistic content; nothing recognised

logger = logging.getLogger(__name__)


@cache
def _identifier() -> Any:
    from heliport import Identifier  # here, because its models take seconds and 150 MB

    logger.info("loading the language identifier")
    return Identifier()


def language_test(language: str, margin: float) -> Callable[[str], bool]:
    """A function that says whether a text may be in a language.

    It may when no other language is likelier by more than `margin`, in log10 probability per word (the mean that HeLI
    compares). A margin keeps text between dialects and neighbours (German/Swiss German, Danish/Norwegian) and lines full
    of names or code, which a bare "most likely language" would drop.

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

    def may_be(text: str) -> bool:
        if identify(text, True) in fine:
            return True
        best = identify_top(text, _CANDIDATES)  # (code, -log10 probability per word), best first
        expected = min((score for code, score in best if code in codes), default=best[-1][1] + margin)
        return bool(expected - best[0][1] <= margin)

    return may_be
