"""Reading a training config from a YAML file, and saying everything that is wrong with it at once."""

import difflib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from limbeck_taskgraph.continuation_rules import continuation_problems
from limbeck_taskgraph.training_config import TrainingConfig
from pipeline.common.errors import UserError


class ConfigError(Exception):
    """A config with errors: the message holds one line for each, with place, finding and remedy."""


def load_training_config(path: str | Path) -> TrainingConfig:
    """Read and check a training config.

    Raises ConfigError with all errors: file and line, key path, what was found, what is allowed, the nearest known key.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return parse_training_config(text, str(path))


def parse_training_config(text: str, path: str = "config") -> TrainingConfig:
    """Like load_training_config, from text; `path` is what messages call it."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a mapping with the keys {', '.join(_keys(TrainingConfig))} is needed")
    duplicates = _duplicate_keys(root)
    problems = [
        (mark.line + 1, f"{'.'.join(place)}: the key stands twice; the first is on line {first.line + 1}")
        for place, first, mark in duplicates
    ]
    config = None
    try:
        config = TrainingConfig.model_validate(values)
    except ValidationError as error:
        problems += _problems(error, values, root)
    if config is not None:
        found = _sentences(config)
        problems += [(_line(root, place), f"{'.'.join(place)}: {problem}") for place, problem in found]
    if problems or config is None:
        lines = [f"{path}:{line}: {problem}" for line, problem in sorted(set(problems))]
        raise ConfigError("\n".join(lines))
    return config


def _sentences(config: TrainingConfig) -> list[tuple[tuple[str, ...], str]]:
    try:
        return list(continuation_problems(config))
    except UserError:
        return []  # of other keys, which check_values says with their places


def _problems(error: ValidationError, values: Any, root: Any) -> list[tuple[int, str]]:
    found: dict[tuple[str, ...], tuple[int, str]] = {}
    for item in error.errors():
        # A union's error has one entry per member, with the member's name as the last part of the place.
        place = tuple(str(part) for part in item["loc"])
        while item["type"] != "missing" and item["type"] != "extra_forbidden" and place and not exists(values, place):
            place = place[:-1]
        if place not in found:
            found[place] = (_line(root, place), f"{'.'.join(place) or 'the config'}: {_describe(item, place, values)}")
    return list(found.values())


def _describe(item: Any, place: tuple[str, ...], values: Any) -> str:
    kind, value, context = item["type"], item.get("input"), item.get("ctx", {})
    if kind == "missing":
        return f"missing; {_field_help(place)}"
    if kind == "extra_forbidden":
        known = _keys(_section(place[:-1]))
        return f"unknown key{nearest(place[-1], known)}; known keys here: {', '.join(known)}"
    value = _value(values, place)
    shown = f"found {value!r}" if value is not None else "found nothing (null)"
    if kind == "literal_error":
        allowed = [part.strip(" '") for part in context["expected"].replace(" or ", ", ").split(",")]
        return f"{shown}; allowed: {', '.join(allowed)}{nearest(str(value), allowed)}"
    if kind == "value_error":
        return f"{shown}; needed: {context['error']}"
    wanted = {
        "int_parsing": "a whole number",
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_parsing": "a number",
        "float_type": "a number",
        "bool_parsing": "true or false",
        "bool_type": "true or false",
        "string_type": "text",
        "list_type": "a list",
        "dict_type": "a mapping",
        "model_type": "a mapping",
        "model_attributes_type": "a mapping",
        "greater_than_equal": f"a number of at least {context.get('ge')}",
        "less_than_equal": f"a number of at most {context.get('le')}",
        "less_than": f"a number below {context.get('lt')}",
        "too_short": f"a list of at least {context.get('min_length')}",
    }.get(kind, item["msg"])
    return f"{shown}; needed: {wanted}"


def nearest(name: str, known: list[str]) -> str:
    """The end of a sentence about a name that is not known: the nearest of those that are, if any is near."""
    close = difflib.get_close_matches(name.replace("_", "-"), known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""


def _keys(section: type[BaseModel] | None) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()] if section else []


def _section(place: tuple[str, ...]) -> type[BaseModel] | None:
    """The class that describes the mapping at a place, None where any key is allowed."""
    section: type[BaseModel] | None = TrainingConfig
    for part in place:
        field = next((f for f in section.model_fields.values() if f.alias == part), None) if section else None
        section = _model_of(field.annotation) if field else None
    return section


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return next((model for arg in get_args(annotation) if (model := _model_of(arg))), None)
    return None


def _field_help(place: tuple[str, ...]) -> str:
    section = _section(place[:-1])
    field = next((f for f in section.model_fields.values() if f.alias == place[-1]), None) if section else None
    if field is not None and (model := _model_of(field.annotation)):
        return f"a mapping with the keys {', '.join(_keys(model))}"
    return field.description if field is not None and field.description else "it is required"


def exists(values: Any, place: Sequence[str]) -> bool:
    """Whether there is something at a place, given by keys of mappings and indexes of lists, in a file's values."""
    missing = object()
    return _value(values, place, missing) is not missing


def _value(values: Any, place: Sequence[str], default: Any = None) -> Any:
    for part in place:
        if isinstance(values, dict) and part in values:
            values = values[part]
        elif isinstance(values, list) and part.isdigit() and int(part) < len(values):
            values = values[int(part)]
        else:
            return default
    return values


def _line(node: Any, place: tuple[str, ...]) -> int:
    """The line (from 1) of the nearest enclosing thing that stands in the file."""
    line = 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == part), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
            node = node.value[int(part)]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _duplicate_keys(node: Any, place: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any, Any]]:
    found = []
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, Any] = {}
        for key, value in node.value:
            if key.value in seen:
                found.append(((*place, key.value), seen[key.value], key.start_mark))
            seen.setdefault(key.value, key.start_mark)
            found += _duplicate_keys(value, (*place, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            found += _duplicate_keys(value, (*place, str(number)))
    return found
