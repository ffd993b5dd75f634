"""Templates of kind.yml and the catalogue: `{src}`, `{experiment.spm-vocab-size}`, `{corpus.src}`."""

import re
from collections.abc import Mapping
from typing import Any

REFERENCE = re.compile(r"\{([a-z0-9.-]+)\}")


def references(template: Any) -> list[str]:
    """The names between braces in a template (a text, or a list of texts)."""
    if isinstance(template, list):
        return [name for part in template for name in references(part)]
    return REFERENCE.findall(template) if isinstance(template, str) else []


def render(template: Any, context: Mapping[str, Any]) -> Any:
    """Fill a template in. A text that is one reference and nothing else keeps the value's type (number, list, None).

    Raises KeyError with the reference that the context lacks.
    """
    if isinstance(template, list):
        return [render(part, context) for part in template]
    if isinstance(template, dict):
        return {key: render(value, context) for key, value in template.items()}
    if not isinstance(template, str):
        return template
    whole = REFERENCE.fullmatch(template)
    if whole:
        return look_up(whole[1], context)
    return REFERENCE.sub(lambda match: str(look_up(match[1], context)), template)


def look_up(name: str, context: Mapping[str, Any]) -> Any:
    """The value at a dotted name."""
    value: Any = context
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise KeyError(f"{{{name}}}: there is no {part!r} here; known: {', '.join(map(str, value))}")
        value = value[part]
    return value
