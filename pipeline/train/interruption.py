"""Being told to stop: training ends at the next safe point, with a checkpoint."""

import signal
from types import FrameType, TracebackType
from typing import NoReturn


class Interrupted(Exception):
    """Raised at a safe point after a signal came."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal = signal_number


class Interruption:
    """While this context is open, SIGTERM and SIGINT only take note; `check` raises Interrupted afterwards.

    A second SIGINT interrupts at once, for whoever cannot wait.
    """

    def __init__(self) -> None:
        self._signal: int | None = None

    def __enter__(self) -> "Interruption":
        self._earlier = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return self._signal is not None

    def check(self) -> None:
        if self._signal is not None:
            raise Interrupted(self._signal)

    def stop(self) -> NoReturn:
        """Raise Interrupted for the signal that came, here or to a process that trains together with this one."""
        raise Interrupted(self._signal or signal.SIGTERM)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._signal == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = number
