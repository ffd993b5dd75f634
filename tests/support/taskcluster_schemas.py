"""Taskcluster's own JSON Schemas as judges; LIMBECK_TASKCLUSTER_SCHEMAS names the folder that has them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from jsonschema.protocols import Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT6

_FOLDER = os.environ.get("LIMBECK_TASKCLUSTER_SCHEMAS", "")
SCHEMAS = bool(_FOLDER) and Path(_FOLDER).is_dir()
needs_schemas = pytest.mark.skipif(
    not SCHEMAS,
    reason="LIMBECK_TASKCLUSTER_SCHEMAS names no folder with Taskcluster's JSON Schemas",
)
PAYLOADS = {"generic-worker": "generic-worker__multiuser_posix", "docker-worker": "docker-worker__v1__payload"}
_validators: dict[str, Validator] = {}


def check(value: Any, schema: str) -> None:
    """Raise ValidationError when a value is not what a schema (its file's name without .json) says."""
    _validator(schema).validate(value)


def check_task(definition: dict[str, Any], implementation: str) -> None:
    """The same of a task: the definition, and its payload unless the queue itself resolves it."""
    check(definition, "queue__v1__create-task-request")
    if definition.get("provisionerId") != "built-in":
        check(definition["payload"], PAYLOADS[implementation])


def _validator(name: str) -> Validator:
    if name not in _validators:
        content = _content(Path(_FOLDER) / f"{name}.json")
        _validators[name] = Draft202012Validator(content, registry=_registry(), format_checker=FormatChecker())
    return _validators[name]


def _registry() -> Registry[Any]:
    resources = [_content(path) for path in Path(_FOLDER).glob("*.json")]
    return Registry().with_resources(
        [(content["$id"].rstrip("#"), Resource.from_contents(content, DRAFT6)) for content in resources]
    )


def _content(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    # The services' own dialect is draft 6 with a few keywords that only describe.
    content.pop("$schema", None)
    content["$id"] = content["$id"].rstrip("#")
    return content


__all__ = ["SCHEMAS", "ValidationError", "check", "check_task", "needs_schemas"]
