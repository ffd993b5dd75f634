"""How models decode during evaluation, by Marian's option names."""

import logging
from dataclasses import dataclass
from typing import Any

from pipeline.common.errors import UserError
from pipeline.model.search import LONGEST

# Accepted because they stand in the same section of a training config as those below, but they only say how bulk
# translation is laid out on the machine: evaluation has its own batches and precisions, the same for every model.
_LAYOUT = frozenset(
    {"fp16", "mini-batch", "mini-batch-words", "maxi-batch", "maxi-batch-sort", "workspace", "precision"}
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecodingOptions:
    """Beam search: hypotheses kept, the exponent that normalises scores by length, and the longest translation."""

    beam_size: int = 1
    normalize: float = 1.0
    max_length: int = LONGEST  # pieces; in any case, translations are cut at a multiple of their source's length

    def to_json(self) -> dict[str, Any]:
        return {"beam-size": self.beam_size, "normalize": self.normalize, "max-length": self.max_length}


def decoding_options(value: Any) -> DecodingOptions:
    """Options of a JSON mapping. Raises UserError on an unknown option or a value that makes no sense."""
    if not isinstance(value, dict):
        raise UserError(f"--options must be a mapping of decoding options, found {value!r}")
    options = {str(key): entry for key, entry in value.items()}
    known = set(DecodingOptions().to_json())
    if unknown := sorted(set(options) - known - _LAYOUT):
        raise UserError(
            f"unknown decoding option {unknown[0]!r}: evaluation knows {', '.join(sorted(known))} "
            f"(and leaves aside {', '.join(sorted(_LAYOUT))})"
        )
    if ignored := sorted(set(options) & _LAYOUT):
        logger.info(f"not used in evaluation, which has its own batches and precision: {', '.join(ignored)}")
    return DecodingOptions(
        beam_size=_whole("beam-size", options.get("beam-size", DecodingOptions.beam_size)),
        normalize=_not_negative("normalize", options.get("normalize", DecodingOptions.normalize)),
        max_length=min(LONGEST, _whole("max-length", options.get("max-length", LONGEST))),
    )


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"decoding option {name!r} must be a whole number of at least 1, found {value!r}")
    return value


def _not_negative(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise UserError(f"decoding option {name!r} must be a number of at least 0, found {value!r}")
    return float(value)
