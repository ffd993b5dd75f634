"""Models for engines in which every layer has parameters of its own."""

import dataclasses

from pipeline.model.config import ModelConfig
from pipeline.model.formats.npz import Array, parameter_arrays
from pipeline.model.transformer import Transformer


def written_out(model: Transformer) -> tuple[ModelConfig, dict[str, Array]]:
    """The architecture and the parameters of a model, with those of tied decoder layers once for each layer."""
    config, arrays = model.config, parameter_arrays(model)
    if not config.transformer_tied_layers:
        return config, arrays
    separate = dataclasses.replace(config, transformer_tied_layers=())
    expanded = {name: array for name, array in arrays.items() if not name.startswith("decoder_l")}
    for layer, stored in zip(separate.decoder_layers, config.decoder_layers, strict=True):
        for name, array in arrays.items():
            if name.startswith(f"{stored}_"):
                expanded[layer + name.removeprefix(stored)] = array
    return separate, expanded
