"""What metadata.json says of a model, in every export: what it is, and what it was made from."""

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.common.download import without_credentials
from pipeline.common.errors import UserError
from pipeline.common.files import sha256
from pipeline.model.config import DROPOUTS, ModelConfig
from pipeline.model.transformer import parameter_shapes

PACKAGES = ("limbeck", "torch", "ctranslate2", "sentencepiece")


def describe_model(languages: tuple[str, str], config: ModelConfig) -> dict[str, Any]:
    """{"src", "trg", "architecture": {Marian's option: value}, "parameters": their number}"""
    return {
        "src": languages[0],
        "trg": languages[1],
        "architecture": {
            field.name.replace("_", "-"): getattr(config, field.name)
            for field in dataclasses.fields(config)
            if field.name not in DROPOUTS
        },
        "parameters": sum(rows * columns for rows, columns in parameter_shapes(config).values()),
    }


def describe_file(path: Path) -> dict[str, Any]:
    """{"bytes", "sha256"}"""
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def describe_provenance(inputs: Mapping[str, Path], config: Path | None) -> dict[str, Any]:
    """{"inputs": {role: {"name", "sha256"}}, "versions": {package: version}, "config": the training config or null}

    Raises UserError when the config is no mapping in YAML or JSON.
    """
    return {
        "inputs": {role: {"name": path.name, "sha256": sha256(path)} for role, path in inputs.items()},
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "config": read_config(config) if config and config.exists() else None,
    }


def read_config(path: Path) -> dict[str, Any]:
    """A training config as it may be published: as written, with URLs without the credentials in them."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"--config {path} must be a training config, a mapping of experiment, datasets and so on")
    return {str(key): _published(value) for key, value in values.items()}


def _published(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _published(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_published(entry) for entry in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return without_credentials(str(value))  # dates, which JSON does not know, become text
