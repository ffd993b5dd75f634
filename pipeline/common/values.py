"""Values as configs and command lines give them: numbers, or texts of numbers."""

import math
from typing import Any


def finite_number(value: Any) -> float | None:
    """The number that a value is or spells; None for what is no number, is not finite, or is true or false."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
