"""Marian's `model.npz`: a plain zip of NumPy arrays and the architecture as YAML text.

Written so that every reader of such files takes it: entries stored without compression, zip64 fields or data
descriptors, .npy format 1.0, and one NUL after the YAML. The same weights give the same bytes.
"""

import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy

from pipeline.common.errors import UserError
from pipeline.model.config import ModelConfig
from pipeline.model.transformer import Transformer, parameter_shapes

CONFIG_NAME = "special:model.yml"
OUTPUT = "decoder_ff_logit_out_W"
OUTPUT_BIAS = "decoder_ff_logit_out_b"
OUTPUT_TRANSPOSED = "decoder_ff_logit_out_Wt"  # the same in newer files of Marian
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can hold

Array = np.ndarray[Any, Any]


def save(model: Transformer, path: str | Path, like: Mapping[str, Array] | None = None) -> None:
    """Write a model: float32, whatever the type of its parameters; under a temporary name first.

    `like` are the arrays of the file that the model was read from (`load_arrays`): shapes, the way round of the output
    layer and the configuration's text stay as they are there, so that an unchanged model gives the same arrays.
    Raises UserError when that file is of another architecture.
    """
    arrays = parameter_arrays(model)
    if like is None:
        save_arrays(arrays, model.config, path)
        return
    if _config(like, path) != model.config:
        raise UserError(f"{path} cannot be written like a file of another architecture")
    if OUTPUT_TRANSPOSED in like:
        arrays[OUTPUT_TRANSPOSED] = arrays.pop(OUTPUT).T
    arrays = {name: array.reshape(like[name].shape) for name, array in arrays.items()}
    save_arrays(arrays, model.config, path, like[CONFIG_NAME].tobytes())


def parameter_arrays(model: Transformer) -> dict[str, Array]:
    """The parameters of a model under Marian's names, float32."""
    return {name: value.detach().to("cpu", torch.float32).numpy() for name, value in model.named_parameters()}


def save_arrays(
    arrays: Mapping[str, Array], config: ModelConfig, path: str | Path, config_text: bytes | None = None
) -> None:
    """Write parameters (float32) under Marian's names, with their architecture, or its text as it is to be written."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    text = np.frombuffer(config_text or config.to_yaml().encode("utf-8") + b"\0", dtype=np.int8)
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file:
            for name in sorted(arrays):
                _write_entry(file, name, np.ascontiguousarray(arrays[name], dtype=np.float32))
            _write_entry(file, CONFIG_NAME, text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_entry(file: zipfile.ZipFile, name: str, array: Array) -> None:
    content = io.BytesIO()
    npy.write_array_header_1_0(content, npy.header_data_from_array_1_0(array))
    content.write(array.tobytes())
    entry = zipfile.ZipInfo(f"{name}.npy", _DATE)
    entry.create_system = 3  # Unix, also elsewhere
    file.writestr(entry, content.getvalue())


def load(path: str | Path) -> Transformer:
    """Read a model, in evaluation mode. Raises UserError when the file is not a whole Marian model of a supported
    architecture."""
    return from_arrays(load_arrays(path), path)


def from_arrays(arrays: Mapping[str, Array], path: str | Path) -> Transformer:
    """The model of a file's arrays; `path` names the file in errors."""
    return assemble(_config(arrays, path), _parameters(arrays), path)


def assemble(config: ModelConfig, found: Mapping[str, Array], path: str | Path) -> Transformer:
    """A model of an architecture and all its parameters, in evaluation mode; `path` names their source in errors."""
    model = Transformer(config)
    expected = parameter_shapes(config)
    if found.keys() != expected.keys():
        missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
        problem = f"lacks the parameter {missing[0]}" if missing else f"has an unknown parameter {extra[0]}"
        raise UserError(f"{path} does not fit its own configuration: it {problem}")
    with torch.no_grad():
        for name, array in found.items():
            if array.shape != expected[name]:
                raise UserError(f"{path}: {name} has shape {array.shape}, but its configuration needs {expected[name]}")
            model.get_parameter(name).copy_(torch.from_numpy(array))
    return model.eval()


def load_config(path: str | Path) -> ModelConfig:
    """The architecture of a model file, without reading its weights."""
    return _config(load_arrays(path, only=CONFIG_NAME), path)


def load_arrays(path: str | Path, only: str | None = None, content: IO[bytes] | None = None) -> dict[str, Array]:
    """The arrays of a model file under their names, or only one of them; with `content`, of a file that is open.

    Raises UserError when it is no such file.
    """
    try:
        with np.load(content or path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files if only in (None, name)}
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except (ValueError, zipfile.BadZipFile, EOFError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is not a sound model.npz: {error}") from error


def _config(arrays: Mapping[str, Array], path: str | Path) -> ModelConfig:
    if CONFIG_NAME not in arrays:
        raise UserError(f"{path} is not a Marian model: it has no {CONFIG_NAME}")
    try:
        return ModelConfig.from_yaml(arrays[CONFIG_NAME].tobytes().rstrip(b"\0").decode("utf-8"))
    except (UserError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}") from error


def _parameters(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The trained parameters among the arrays, two-dimensional, float32."""
    found = {}
    for name, array in arrays.items():
        if name.startswith("special:") or name == "Wpos" or name.endswith("_QuantMultA"):
            continue
        matrix = np.asarray(array.reshape(1, -1) if array.ndim == 1 else array, dtype=np.float32)
        if name == OUTPUT_TRANSPOSED:
            name, matrix = OUTPUT, np.ascontiguousarray(matrix.T)
        found[name] = matrix
    return found
