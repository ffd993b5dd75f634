"""Fine-tuning a student in the 8-bit arithmetic of the engine it is for (`pipeline.model.quantization`).

The browser's activation multipliers (alphas) are found on the devset before the first update and then stay: what they
clip is known to the training, which learns to live with it, and the engine computes what was validated to the last bit.
Multipliers that follow the activations would be others after the best validation than at it. They are part of a
training's identity, so a checkpoint brings its own, and the best model carries them under Marian's names.
"""

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.common.errors import UserError
from pipeline.model.calibration import calibrate
from pipeline.model.config import DROPOUTS
from pipeline.model.formats import npz
from pipeline.model.quantization import Quantization, QuantizedTransformer
from pipeline.model.transformer import Transformer
from pipeline.train.checkpoint import read_identity
from pipeline.train.distributed import Processes
from pipeline.train.initialise import find_model

if TYPE_CHECKING:
    from pipeline.train.validate import Validator

logger = logging.getLogger(__name__)

CALIBRATION_SENTENCES = 300
_TARGET, _SATURATION, _ALPHAS = "quantization", "quantization-saturation", "quantization-alphas"


def student_architecture(student: Path) -> dict[str, Any]:
    """The options (Marian's names) that describe a model's architecture: it is trained on as it is."""
    config = npz.load_config(find_model(student))
    names = [field.name for field in dataclasses.fields(config) if field.name not in (*DROPOUTS, "dim_vocabs")]
    return {name.replace("_", "-"): getattr(config, name) for name in names}


def begin_quantized(
    model: Transformer,
    quantization: Quantization,
    validator: "Validator",
    earlier: Path | None,
    processes: Processes,
) -> QuantizedTransformer:
    """A model, which is still on the processor, in this arithmetic. Its activation multipliers are those of the
    checkpoint `earlier`; without one they are found on the validator's devset.

    Raises UserError when the target cannot compute the model, or the checkpoint is of other arithmetic.
    """
    alphas: dict[str, float] = {}
    if earlier is not None:
        alphas = _alphas(earlier, quantization)
    elif quantization.target == "browser":
        alphas = processes.from_first(_calibrated(model, validator) if processes.first else None)
    quantization = dataclasses.replace(quantization, alphas=alphas)
    logger.info(f"training: every matrix product in 8 bits, as {_describe(quantization)} computes it")
    return QuantizedTransformer.of(model, quantization)


def describe_quantization(model: Transformer) -> dict[str, Any]:
    """What of the arithmetic decides the result of a training, for its identity; nothing for floats."""
    if not isinstance(model, QuantizedTransformer):
        return {}
    quantization = model.quantization
    return {
        _TARGET: quantization.target,
        _SATURATION: quantization.saturation,
        _ALPHAS: dict(quantization.alphas),
    }


def _alphas(checkpoint: Path, quantization: Quantization) -> dict[str, float]:
    identity = read_identity(checkpoint)
    found, wanted = identity.get(_TARGET, "none"), quantization.target
    if found != wanted:
        raise UserError(
            f"{checkpoint} is of a training with quantization {found}, but {wanted} is asked for: give another "
            "--checkpoint-dir, or its model as --init"
        )
    alphas: dict[str, float] = identity[_ALPHAS]
    return alphas


def _calibrated(model: Transformer, validator: "Validator") -> dict[str, float]:
    pairs = len(validator.src)
    # Sentences are sorted by length: evenly spread, short and long ones are among them.
    places = np.unique(np.linspace(0, pairs - 1, min(pairs, CALIBRATION_SENTENCES)).round().astype(int))
    logger.info(f"training: finding the range of activations on {len(places)} sentences of the devset")
    rows = (validator.src.padded(places[place : place + 1])[0][0] for place in range(len(places)))
    alphas = calibrate(model, [row.tolist()[:-1] for row in rows])  # without the end of sentence
    return {name: float(np.float32(alpha)) for name, alpha in alphas.items()}  # as files and engines have them


def _describe(quantization: Quantization) -> str:
    if quantization.target == "ctranslate2":
        return "CTranslate2"
    return "the browser's engine" + (" with sums that saturate" if quantization.saturation else "")
