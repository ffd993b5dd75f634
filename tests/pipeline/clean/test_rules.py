import dataclasses

import pytest

from pipeline.clean.rules import MONO_RULE_NAMES, RULE_NAMES, Rules, check_overrides, describe_rules, rules_for
from pipeline.common.errors import UserError


def test_override_and_switch_off() -> None:
    rules = rules_for("de", check_overrides({"length-ratio": 4, "language": False}))
    assert rules == dataclasses.replace(Rules(), length_ratio=4, language=False)


def test_no_overrides() -> None:
    assert check_overrides(None) == {}
    assert rules_for("en", {}) == Rules()


def test_scripts_without_spaces_have_their_own_defaults_which_can_be_overridden() -> None:
    assert rules_for("zh-Hant", {}).max_words == 300
    assert rules_for("ja", {"max-words": 20}).max_words == 20


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"lenght-ratio": 3}, "did you mean 'length-ratio'"),
        ({"qqqqq": 3}, "the rules are mojibake"),
        ({"max-words": 3.5}, "'max-words' must be a whole number above 0, or false, not 3.5"),
        ({"max-words": True}, "whole number"),
        ({"max-words": "9"}, "whole number"),
        ({"length-ratio": -1}, "a number above 0"),
        ({"alphabetic-words": 1.5}, "at most 1"),
        ({"mojibake": 1}, "true or false"),
        ({"language": None}, "or false"),
        (["language"], "must be a mapping"),
    ],
)
def test_bad_overrides(overrides: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_overrides(overrides)


def test_every_rule_is_described() -> None:
    text = describe_rules()
    assert all(f"  {name} [" in text for name in RULE_NAMES)
    assert set(RULE_NAMES) - set(MONO_RULE_NAMES) == {"length-ratio", "number-mismatch", "url-mismatch", "copied-text"}
