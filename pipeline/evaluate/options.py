"""How models decode during evaluation, by Marian's option names."""

import logging
from dataclasses import dataclass
from typing import Any

from pipeline.common.errors import UserError
from pipeline.model.search import LENGTH_FACTOR, LONGEST

# Accepted because they stand in the same section of a training config as those below, but they only say how bulk
# translation is laid out on the machine: evaluation has its own batches and precisions, the same for every model.
# fmt: off
_LAYOUT = frozenset((
    "cpu-threads", "devices", "fp16", "log-level", "max-length-crop", "maxi-batch", "maxi-batch-sort",
    "maxi-batch-words", "mini-batch", "mini-batch-words", "n-best", "precision", "quiet", "quiet-translation",
    "skip-cost", "workspace",
))
# fmt: on

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecodingOptions:
    """Beam search: hypotheses kept, and the exponent that normalises scores by length.

    `max_length` counts source pieces: longer sources are cut, and counted. A translation is cut at
    `max_length_factor` times its source's length (and some pieces more, for short ones).
    """

    beam_size: int = 1
    normalize: float = 1.0
    max_length: int = LONGEST
    max_length_factor: float = LENGTH_FACTOR
    allow_unk: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "beam-size": self.beam_size,
            "normalize": self.normalize,
            "max-length": self.max_length,
            "max-length-factor": self.max_length_factor,
            "allow-unk": self.allow_unk,
        }


def decoding_options(value: Any) -> DecodingOptions:
    """Options of a JSON mapping. Raises UserError on an unknown option or a value that makes no sense."""
    if not isinstance(value, dict):
        raise UserError(f"--options must be a mapping of decoding options, found {value!r}")
    defaults = DecodingOptions().to_json()
    options = {str(key): entry for key, entry in value.items()}
    if options.pop("word-penalty", 0):
        raise UserError("decoding option 'word-penalty' is not supported: leave it out, or use normalize")
    if unknown := sorted(set(options) - set(defaults) - _LAYOUT):
        raise UserError(
            f"unknown decoding option {unknown[0]!r}: evaluation knows {', '.join(sorted(defaults))} "
            f"(and leaves aside {', '.join(sorted(_LAYOUT))})"
        )
    if ignored := sorted(set(options) & _LAYOUT):
        logger.info(f"not used in evaluation, which has its own batches and precision: {', '.join(ignored)}")
    options = defaults | options
    return DecodingOptions(
        beam_size=_whole("beam-size", options["beam-size"]),
        normalize=_number("normalize", options["normalize"]),
        max_length=min(LONGEST, _whole("max-length", options["max-length"])),
        max_length_factor=_number("max-length-factor", options["max-length-factor"]),
        allow_unk=_boolean("allow-unk", options["allow-unk"]),
    )


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"decoding option {name!r} must be a whole number of at least 1, found {value!r}")
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise UserError(f"decoding option {name!r} must be a number of at least 0, found {value!r}")
    return float(value)


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"decoding option {name!r} must be true or false, found {value!r}")
    return value
