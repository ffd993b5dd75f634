"""A process beside an engine that kills the engine's tasks when the engine is gone, however it went.

Started as a script with nothing but the standard library, for it lives as long as the engine does. It reads lines from
its standard input, `+` or `-` and the number of a process group, and acts when that ends.
"""

import contextlib
import os
import signal
import sys


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # these are for the engine, which may want time to stop its tasks
    groups = set()
    for line in sys.stdin.buffer:
        group = int(line[1:])
        if line.startswith(b"+"):
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
