"""Models for Bergamot, the translation engine of Firefox: Marian's binary files, in eight bits or in float32.

In eight bits every matrix has one scale, and so has every input of a matrix product: its "alpha", 127 divided by the
largest absolute value that is expected there (`pipeline.model.calibration` finds them). Larger ones are clipped. The
engine computes attention, normalisation and embeddings in float32.
"""

import logging
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.common.errors import UserError
from pipeline.model.config import ModelConfig
from pipeline.model.formats import marian_binary as binary
from pipeline.model.formats import npz
from pipeline.model.transformer import Transformer, parameter_shapes

logger = logging.getLogger(__name__)

ALPHA = "_QuantMultA"  # after a matrix's name: the alpha of its input
WIDTHS = 16  # what the engine's WebAssembly multiplies at a time; Firefox's own code wants NATIVE_WIDTHS
NATIVE_WIDTHS = 64
VOCAB_SIZES = 8
# How the engine is to run a model in eight bits; beam 1 needs no probabilities.
OPTIONS = {
    "beam-size": 1,
    "normalize": 1.0,
    "word-penalty": 0,
    "alignment": "soft",  # for text with HTML tags
    "max-length-break": 128,
    "mini-batch-words": 1024,
    "workspace": 128,
    "max-length-factor": 2.0,
    "skip-cost": True,
    "gemm-precision": "int8shiftAlphaAll",
}


def save(model: Transformer, path: str | Path, alphas: Mapping[str, float] | None = None) -> None:
    """Write a model in eight bits, with the alphas of `product_inputs`; without alphas in float32.

    Raises UserError when the engine cannot compute the architecture, or an alpha is missing or no positive number.
    """
    config = model.config
    check_architecture(config)
    arrays = npz.parameter_arrays(model)
    for name, array in arrays.items():
        if not np.isfinite([array.min(), array.max()]).all():
            raise UserError(f"{name} holds values that are no numbers: the model cannot be written")
    if alphas is None:
        items = [binary.float32_item(name, array) for name, array in arrays.items()]
    else:
        check_sizes(config)
        items = [
            binary.int8_item(name, array) if binary.is_quantized(name) else binary.float32_item(name, array)
            for name, array in arrays.items()
        ]
        items += _alpha_items(config, alphas)
    items.sort(key=lambda item: item.name)
    binary.write(path, [*items, binary.text_item(npz.CONFIG_NAME, config.to_yaml())])


def load(path: str | Path) -> Transformer:
    """Read a model, in evaluation mode; matrices in eight bits are scaled back to float32.

    Raises UserError when the file is not a whole model of a supported architecture.
    """
    return npz.from_arrays({item.name: item.values for item in binary.read(path)}, path)


def load_alphas(path: str | Path) -> dict[str, float]:
    """The alphas of a model by the names of the matrices; none when it was written without."""
    return {
        item.name.removesuffix(ALPHA): float(item.values.reshape(-1)[0])
        for item in binary.read(path)
        if item.name.endswith(ALPHA) and not item.name.startswith("none")
    }


def product_inputs(config: ModelConfig) -> list[str]:
    """Names of the matrices that something is multiplied with, and so of the alphas that a model has."""
    names = [name for name in parameter_shapes(config) if binary.is_quantized(name) and not binary.is_embedding(name)]
    return names if not config.ties_output else [*names, output_matrix(config)]


def output_matrix(config: ModelConfig) -> str:
    """Name of the matrix of the output layer."""
    if not config.ties_output:
        return npz.OUTPUT
    return "Wemb" if config.shares_embeddings else "decoder_Wemb"


def check_architecture(config: ModelConfig) -> None:
    """Raise UserError, with the reason, for an architecture that the engine does not compute as it was trained."""
    if "n" in config.transformer_preprocess:
        raise UserError(
            f"Bergamot cannot compute a model with transformer-preprocess {config.transformer_preprocess!r}: of "
            "self-attention its Marian (1.9) normalises the queries alone, where training normalised keys and values "
            "too; train with transformer-postprocess dan"
        )
    if "a" in config.transformer_postprocess_top and "n" in config.transformer_postprocess_emb:
        raise UserError(
            f"Bergamot cannot compute a model with transformer-postprocess-top {config.transformer_postprocess_top!r} "
            f"and -postprocess-emb {config.transformer_postprocess_emb!r}: where embeddings are normalised, its Marian "
            "(1.9) adds something else than them at the top"
        )


def check_sizes(config: ModelConfig) -> None:
    """Raise UserError for sizes that the engine's arithmetic in eight bits cannot have."""
    widths = {"dim-emb": config.dim_emb, "transformer-dim-ffn": config.transformer_dim_ffn}
    for key, width in widths.items():
        if width % WIDTHS:
            raise UserError(f"{key} is {width}: in eight bits Bergamot needs a multiple of {NATIVE_WIDTHS}")
        if width % NATIVE_WIDTHS:
            logger.warning(
                f"{key} is {width}: WebAssembly computes it, but the faster code inside Firefox and in native builds "
                f"needs a multiple of {NATIVE_WIDTHS}"
            )
    for size in config.dim_vocabs:
        if size % VOCAB_SIZES:
            raise UserError(
                f"a vocabulary has {size} pieces: in eight bits Bergamot needs a multiple of {VOCAB_SIZES}, such as "
                f"{size - size % VOCAB_SIZES} (spm-vocab-size)"
            )


def _alpha_items(config: ModelConfig, alphas: Mapping[str, float]) -> list[binary.Item]:
    values = {}
    for name in product_inputs(config):
        alpha = alphas.get(name)
        if alpha is None or not 0 < alpha < math.inf:
            raise UserError(f"the alpha of {name} is {alpha}: a number above 0 is needed")
        values[name] = alpha
    # Engines before 0.4.9 ask for this name when a shortlist has picked columns of the output layer.
    values["none"] = values[output_matrix(config)]
    return [binary.float32_item(name + ALPHA, np.full((1, 1), alpha)) for name, alpha in values.items()]
