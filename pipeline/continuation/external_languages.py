"""How translation models of other makers are told the languages: by a token, or by words, where the family wants it."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.common.errors import UserError

# The spelling of a language's token in each family; its first group is the language's code.
TOKENS = {
    "marian": re.compile(r">>(.+)<<"),
    "m2m100": re.compile(r"__(\w+)__"),
    "nllb": re.compile(r"([a-z]{3}_[A-Z][a-z]{3})"),
    "mbart": re.compile(r"([a-z]{2}_[A-Z]{2})"),
    "t5": re.compile(r"<2(.+)>"),
}


@dataclass(frozen=True)
class Languages:
    """The language asked for on each side, as codes of the model's own; None where none was given."""

    source: str | None
    target: str | None


def codes_of(family: str, pieces: Sequence[str]) -> dict[str, str]:
    """The languages of a model by their codes, each with its token."""
    pattern = TOKENS.get(family)
    matches = (pattern.fullmatch(piece) for piece in pieces) if pattern else ()
    return {match[1]: match[0] for match in matches if match}


def language_tokens(
    name: str,
    family: str,
    pieces: Sequence[str],
    languages: Languages,
    forced: list[str],
    config: dict[str, Any],
) -> tuple[list[str], list[str], str]:
    """Tokens for the target language in front of a source, those that translations begin with, and words in front.

    Raises UserError for codes that the model does not know, that it needs, or that would change nothing.
    """
    codes = codes_of(family, pieces)
    if family in ("m2m100", "nllb", "mbart"):
        if not codes:
            raise UserError(
                f"{name} is of a multilingual family, but has no language tokens: its tokenizer files are not whole"
            )
        needed = {"--source-language": languages.source, **({} if forced else {"--target-language": languages.target})}
        for flag, code in needed.items():
            if not code:
                raise UserError(f"{name} translates between {len(codes)} languages: {flag} is needed, {_some(codes)}")
        for flag, code in {"--source-language": languages.source, "--target-language": languages.target}.items():
            _check_code(name, flag, code, codes)
        return [], [codes[languages.target]] if languages.target else forced, ""
    if codes:
        if languages.source:
            raise UserError(
                f"{name} is told the target language only: --source-language {languages.source} changes nothing"
            )
        if not languages.target:
            raise UserError(
                f"{name} translates into {len(codes)} languages: --target-language is needed, {_some(codes)}"
            )
        _check_code(name, "--target-language", languages.target, codes)
        return [codes[languages.target]], forced, ""
    if languages == Languages(None, None):
        return [], forced, ""
    tasks = {
        task.removeprefix("translation_"): settings["prefix"]
        for task, settings in (config.get("task_specific_params") or {}).items()
        if task.startswith("translation_") and settings.get("prefix")
    }
    if words := tasks.get(f"{languages.source}_to_{languages.target}"):
        return [], forced, words.strip()
    given = " and ".join(code for code in (languages.source, languages.target) if code)
    if tasks:
        raise UserError(
            f"{name} has no task {languages.source}_to_{languages.target}: it has {', '.join(sorted(tasks))}"
        )
    raise UserError(
        f"{name} has no language tokens, so that the language {given} would change nothing: leave it away"
        + (" (a task's words can be put in front by --source-prefix when translating)" if family == "t5" else "")
    )


def _check_code(name: str, flag: str, code: str | None, codes: dict[str, str]) -> None:
    if code is None or code in codes:
        return
    alike = [known for known in codes if known[:2].lower() == code[:2].lower()]
    near = [*difflib.get_close_matches(code, codes, n=5, cutoff=0.6), *alike]
    hint = f"the nearest are {', '.join(dict.fromkeys(near))}" if near else _some(codes)
    raise UserError(f"{name} knows no language {code!r} ({flag}): {hint}")


def _some(codes: dict[str, str]) -> str:
    names = sorted(codes)
    return f"one of {', '.join(names[:8])}" + (" …" if len(names) > 8 else "")
