"""The cleaning rules: names, defaults and meanings, declared once.

`Rules` holds one threshold per rule, in the order in which the rules are applied and reported. A rule's public name is
its field's name with hyphens. An override is JSON: `{"length-ratio": 4, "language": false}`.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from pipeline.common.errors import UserError
from pipeline.common.languages import is_unspaced

Threshold = bool | int | float


def _rule(
    default: Threshold,
    meaning: str,
    *,
    pair: bool = False,
    unspaced: Threshold | None = None,
    at_most: float | None = None,
) -> Any:
    metadata = {"default": default, "meaning": meaning, "pair": pair, "unspaced": unspaced, "at_most": at_most}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Rules:
    """A threshold for each rule; False switches the rule off. "Words" are characters in scripts without spaces."""

    mojibake: bool = _rule(True, "a side holds U+FFFD, private-use characters or double-encoded UTF-8 beyond repair")
    empty: bool = _rule(True, "a side is empty after normalisation")
    max_words: int | bool = _rule(150, "a side has more words than this", unspaced=300)
    max_word_length: int | bool = _rule(80, "a side has a word of more characters than this")
    alphabetic_words: float | bool = _rule(
        0.3, "less than this share of a side's words hold a letter of the language's script or Latin", at_most=1
    )
    alphabetic_characters: float | bool = _rule(
        0.3, "less than this share of a side's visible characters are such letters", at_most=1
    )
    repeated_text: int | bool = _rule(5, "a side repeats a phrase of 1-10 words this many times in a row", unspaced=8)
    length_ratio: float | bool = _rule(
        2.5,
        "one side is this many times longer than the other, in characters, with 15 added to both for the sake of short "
        "text and the characters of dense scripts weighted",
        pair=True,
    )
    number_mismatch: float | bool = _rule(
        0.5,
        "less than this share of the numbers of two or more digits stands on both sides (three or more where a side "
        "has none, as it may spell them out)",
        pair=True,
        at_most=1,
    )
    url_mismatch: bool = _rule(True, "the sides differ in their number of web or e-mail addresses", pair=True)
    copied_text: float | bool = _rule(
        0.9,
        "at least this share of the words is the same on both sides, or the sides are equal but for case and have two "
        "words or more",
        pair=True,
        at_most=1,
    )
    language: float | bool = _rule(
        0.5,
        "another language is likelier by more than this (difference of log10 probabilities per word; 6/n times as much "
        "is asked of a segment of n < 6 words)",
    )


RULE_NAMES = tuple(field.name.replace("_", "-") for field in dataclasses.fields(Rules))
MONO_RULE_NAMES = tuple(
    name for name, field in zip(RULE_NAMES, dataclasses.fields(Rules), strict=True) if not field.metadata["pair"]
)


def rules_for(language: str, overrides: Mapping[str, Threshold]) -> Rules:
    """The rules for one side: the defaults for its language, with the overrides of `check_overrides`."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Rules):
        name = field.name.replace("_", "-")
        if name in overrides:
            values[field.name] = overrides[name]
        elif field.metadata["unspaced"] is not None and is_unspaced(language):
            values[field.name] = field.metadata["unspaced"]
    return Rules(**values)


def check_overrides(overrides: Any) -> dict[str, Threshold]:
    """The value of `--rules`, checked.

    Raises UserError on an unknown rule (with the nearest known one) and on a threshold of the wrong type or range.
    """
    if overrides is None:
        return {}
    if not isinstance(overrides, dict):
        raise UserError(f"cleaning rules must be a mapping of rule names to thresholds or false, not {overrides!r}")
    fields = {field.name.replace("_", "-"): field for field in dataclasses.fields(Rules)}
    for name, value in overrides.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"the rules are {', '.join(fields)}"
            raise UserError(f"there is no cleaning rule {name!r}: {hint}")
        metadata = fields[name].metadata
        if value is not False and not _fits(value, metadata["default"], metadata["at_most"]):
            raise UserError(f"cleaning rule {name!r} must be {_wanted(metadata)}, not {value!r}")
    return dict(overrides)


def describe_rules() -> str:
    """The rules as lines of help text."""
    lines = ["A line is removed by the first rule that holds (defaults in brackets):"]
    for name, field in zip(RULE_NAMES, dataclasses.fields(Rules), strict=True):
        default, unspaced = field.metadata["default"], field.metadata["unspaced"]
        shown = "on" if default is True else f"{default}, without spaces {unspaced}" if unspaced else f"{default}"
        lines.append(f"  {name} [{shown}]: {field.metadata['meaning']}")
    return "\n".join(lines)


def _fits(value: Any, default: Threshold, at_most: float | None) -> bool:
    if isinstance(default, bool):
        return value is True
    if isinstance(value, bool) or not isinstance(value, int if isinstance(default, int) else (int, float)):
        return False
    return 0 < value <= (at_most or float("inf"))


def _wanted(metadata: Mapping[str, Any]) -> str:
    if isinstance(metadata["default"], bool):
        return "true or false"
    kind = "a whole number" if isinstance(metadata["default"], int) else "a number"
    limit = f" and at most {metadata['at_most']}" if metadata["at_most"] else ""
    return f"{kind} above 0{limit}, or false"
