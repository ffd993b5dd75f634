"""Progress of long work, as plain log lines: what, how much, how fast, how long still.

An engine shows the last line of a task's log, so these lines are all the protocol there is.
"""

import logging
import time

logger = logging.getLogger(__name__)


class Progress:
    """Counts work done and logs a line at most every `interval` seconds.

    `total` is None when unknown. `unit` is the plural of what is counted ("pairs", "sentences", "MB").
    """

    def __init__(self, doing: str, unit: str, total: int | None = None, interval: float = 2.0) -> None:
        self.doing, self.unit, self.total, self.interval = doing, unit, total, interval
        self.done = 0
        self._start = self._logged = time.monotonic()

    def add(self, count: int = 1) -> None:
        self.done += count
        now = time.monotonic()
        if now - self._logged >= self.interval:
            self._logged = now
            logger.info(self.line(now))

    def finish(self) -> None:
        """Log the closing line: how much was done and how fast."""
        seconds = time.monotonic() - self._start
        rate = self.done / seconds if seconds > 0 else 0.0
        logger.info(
            f"{self.doing}: {self.done:,} {self.unit} in {format_duration(seconds)} ({rate:,.0f} {self.unit}/s)"
        )

    def line(self, now: float) -> str:
        rate = self.done / max(now - self._start, 1e-9)
        if not self.total:
            return f"{self.doing}: {self.done:,} {self.unit}, {rate:,.0f} {self.unit}/s"
        left = (self.total - self.done) / rate if rate > 0 else 0.0
        share = 100 * self.done / self.total
        return (
            f"{self.doing}: {self.done:,} of {self.total:,} {self.unit} ({share:.0f} %), "
            f"{rate:,.0f} {self.unit}/s, {format_duration(left)} left"
        )


def format_duration(seconds: float) -> str:
    """Seconds as a person reads them: `0.4 s`, `42 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
