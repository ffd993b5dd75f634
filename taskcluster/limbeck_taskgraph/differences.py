"""Why a task does not mean what an earlier one of its label meant, in people's words.

A meaning is what a task's digest covers (`extra.limbeck` of its definition, see digest.py).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Meaning = Mapping[str, Any]

NEVER_RAN = "never ran"
_LONGEST_VALUE = 60


def nearest(new: Meaning, earlier: Sequence[Meaning]) -> Meaning | None:
    """The earlier meaning with the fewest differences, the first of several; None when there is none."""
    return min(earlier, key=lambda old: len(differences(new, old)), default=None)


def differences(new: Meaning, old: Meaning, names: Mapping[str, str] | None = None) -> list[str]:
    """Everything in which two meanings differ, a few words for each: `spm-vocab-size 8000 -> 16000`.

    `names` are what a person calls inputs and parameters, by the names that the stage has for them. Empty when the
    digests are the same.
    """
    if new["digest"] == old["digest"]:
        return []
    names = names or {}
    found = []
    if new["stage"] != old["stage"]:
        found.append(f"stage {old['stage']} -> {new['stage']}")
    if new["version"] != old["version"]:
        found.append(f"stage version {old['version']} -> {new['version']}")
    if new["languages"] != old["languages"]:
        found.append(f"languages {'-'.join(old['languages'])} -> {'-'.join(new['languages'])}")
    for section in ("variables", "parameters"):
        for key in sorted(new[section].keys() | old[section].keys()):
            found += _changes(names.get(key, key), old[section].get(key), new[section].get(key))
    for name in sorted(new["inputs"].keys() | old["inputs"].keys()):
        found += _input_changes(names.get(name, name), old["inputs"].get(name, {}), new["inputs"].get(name, {}))
    return found or ["its inputs come in another order"]


def _changes(name: str, old: Any, new: Any) -> Iterator[str]:
    """The values that differ, however deep they lie, each under its own key."""
    if old == new:
        return
    if isinstance(old, dict | None) and isinstance(new, dict | None):
        before, after = old or {}, new or {}
        for key in sorted(before.keys() | after.keys()):
            yield from _changes(f"{name} {key}", before.get(key), after.get(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (before, after) in enumerate(zip(old, new, strict=True), 1):
            yield from _changes(f"{name} {number}", before, after)
    else:
        yield f"{name} {_show(old)} -> {_show(new)}"


def _show(value: Any) -> str:
    if value is None:
        return "not set"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _input_changes(name: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """`old`, `new`: digests of the tasks that make the input, by label."""
    gone, come = sorted(old.keys() - new.keys()), sorted(new.keys() - old.keys())
    if len(gone) == len(come) == 1 and old[gone[0]] == new[come[0]]:
        return
    if gone and come and len(new) == len(come):
        yield f"input {name} now comes from {_list(come)}"
        return
    if come:
        yield f"input {name} now has {_list(come)}"
    if gone:
        yield f"input {name} no longer has {_list(gone)}"
    if any(old[label] != new[label] for label in old.keys() & new.keys()):
        yield f"input {name} changed"


def _list(labels: Sequence[str]) -> str:
    return ", ".join(labels[:3]) + (f" and {len(labels) - 3} more" if len(labels) > 3 else "")
