"""When things happen during training, and the learning rate, in Marian's units and by Marian's formulae."""

import math
import re
from dataclasses import dataclass
from typing import Literal

Unit = Literal["epochs", "updates", "tokens"]

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)([KMG]?)([eut]?)")
_FACTORS = {"": 1, "K": 1_000, "M": 1_000_000, "G": 1_000_000_000}
_UNITS: dict[str, Unit] = {"": "updates", "u": "updates", "e": "epochs", "t": "tokens"}


@dataclass(frozen=True)
class Amount:
    """So many epochs, updates or target tokens of training. Zero means never (of a limit or a frequency)."""

    count: float
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> "Amount":
        """`16000`, `3000u`, `20e`, `10Mt`: a number, K, M or G, and u for updates (or nothing), e for epochs, t for
        target tokens. Raises ValueError on anything else.
        """
        match = _AMOUNT.fullmatch(text.strip())
        if not match:
            raise ValueError("an amount such as 16000, 3000u, 20e or 10Mt")
        number, factor, unit = match.groups()
        return cls(float(number) * _FACTORS[factor], _UNITS[unit])

    def __str__(self) -> str:
        singular = self.unit.removesuffix("s")
        return f"{self.count:,.10g} {singular if self.count == 1 else self.unit}"


@dataclass
class Progress:
    """How far training has come. `epochs` counts passes over the main corpus, with its fraction."""

    updates: int = 0
    epochs: float = 0.0
    tokens: int = 0

    def of(self, unit: Unit) -> float:
        return float(getattr(self, unit))

    def reached(self, amount: Amount) -> bool:
        return amount.count > 0 and self.of(amount.unit) >= amount.count

    def periods(self, every: Amount) -> int:
        """How many whole periods of `every` have passed; an event is due when this number has grown."""
        return int(self.of(every.unit) // every.count) if every.count > 0 else 0


def learning_rate(
    learn_rate: float,
    warmup: Amount,
    decay_inv_sqrt: tuple[Amount, ...],
    progress: Progress,
) -> float:
    """The learning rate for the next update after `progress`, as Marian's scheduler computes it.

    Warm-up multiplies by min(1, p / warmup). `decay_inv_sqrt` is (n,) or (n, start), start defaulting to n; from there
    on the rate is multiplied by sqrt(n / (p - start + n)), which is 1 at p = start.
    """
    rate = learn_rate
    if warmup.count > 0:
        rate *= min(1.0, progress.of(warmup.unit) / warmup.count)
    if decay_inv_sqrt and decay_inv_sqrt[0].count > 0:
        n, start = decay_inv_sqrt[0], decay_inv_sqrt[-1].count
        passed = progress.of(n.unit)
        if passed > start:
            rate *= math.sqrt(n.count / (passed - start + n.count))
    return rate
