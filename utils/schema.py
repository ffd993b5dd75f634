"""Print the definition of the training config: as JSON Schema, or as the table that docs/training-config.md holds."""

import itertools
import json
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from limbeck_taskgraph.section import Section
from limbeck_taskgraph.training_config import TrainingConfig
from utils.common import command_parser

EXAMPLES = """examples:
  limbeck config schema > training-config.schema.json      for an editor's completion
  limbeck config schema --format table
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and print the schema."""
    parser = command_parser("config schema", __doc__, EXAMPLES)
    parser.add_argument("--format", choices=["json", "table"], default="json")
    options = parser.parse_args(arguments)
    sys.stdout.write(json_schema() if options.format == "json" else markdown_table())
    print()
    return 0


def json_schema() -> str:
    """The training config as JSON Schema (draft 2020-12)."""
    return json.dumps(TrainingConfig.model_json_schema(by_alias=True), indent=2)


def markdown_table() -> str:
    """Every key of the training config with its values, default and meaning, as a Markdown table."""
    lines = ["| key | values | default | meaning |", "|---|---|---|---|"]
    for key, field, required in _fields(TrainingConfig, "", "required"):
        default = required if field.is_required() else f"`{json.dumps(field.get_default(call_default_factory=True))}`"
        lines.append(f"| `{key}` | {_values(field.annotation)} | {default} | {field.description or ''} |")
    return "\n".join(lines)


def _fields(section: type[Section], prefix: str, required: str) -> Iterator[tuple[str, FieldInfo, str]]:
    """Every key below a section, its field, and what is said of it if it has no default.

    What is below neighbours that are alike stands once, as `{this,that}.key`.
    """
    fields = {field.alias or name: field for name, field in section.model_fields.items()}
    for annotation, group in itertools.groupby(fields, key=lambda key: fields[key].annotation):
        keys, inner = list(group), _section_of(annotation)
        is_always_there = inner == annotation
        if inner is not None and is_always_there:
            for key in keys:
                yield from _fields(inner, f"{prefix}{key}.", required)
            continue
        yield from ((f"{prefix}{key}", fields[key], required) for key in keys)
        if inner is not None:
            alike = keys[0] if len(keys) == 1 else "{" + ",".join(keys) + "}"
            yield from _fields(inner, f"{prefix}{alike}.", "required where that is given")


def _section_of(annotation: Any) -> type[Section] | None:
    """The section that a field holds, always or at times."""
    members = get_args(annotation) if get_origin(annotation) in (typing.Union, types.UnionType) else [annotation]
    return next((member for member in members if isinstance(member, type) and issubclass(member, Section)), None)


def _values(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is typing.Annotated:
        return _values(get_args(annotation)[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_values(arg) for arg in get_args(annotation) if arg is not type(None))
    if origin is list:
        return f"list of {_values(get_args(annotation)[0])}"
    if origin is dict:
        return "mapping"
    if _section_of(annotation):
        return "mapping"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "anything"}
    return names.get(annotation, str(annotation))


if __name__ == "__main__":
    sys.exit(main())
