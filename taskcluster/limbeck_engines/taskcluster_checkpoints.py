"""Let a command's checkpoints outlive its machine: `… -m limbeck_engines.taskcluster_checkpoints -- COMMAND…`

For training on machines that may be taken away. Before the command starts, the newest whole checkpoint that an earlier
run of the same task published is put into $LIMBECK_CHECKPOINTS. While it runs, checkpoints that appear there are
published as artifacts of the current run: the newest, at most one every so many seconds, and a last one when the
command was stopped or failed. Signals and the exit code are passed on.

The task needs the taskcluster-proxy (payload.features.taskclusterProxy) and, where artifacts are not public to
everybody, the scope queue:get-artifact:public/*. Elsewhere, without TASKCLUSTER_PROXY_URL, the command just runs.
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from limbeck_engines.taskcluster_client import Deployment
from limbeck_engines.taskcluster_sets import Limits, PublishedSets, sets_in
from pipeline.common.errors import EXIT_FAILED, EXIT_RETRY, TransientError, UserError

logger = logging.getLogger(__name__)

FOLDER = "LIMBECK_CHECKPOINTS"
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, restore, run the command and publish meanwhile; returns the command's exit code."""
    options = _parser().parse_args(arguments)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    folder = Path(os.environ.get(FOLDER) or Path(os.environ.get("TASK_WORKDIR", "."), "checkpoints").absolute())
    try:
        published = _published(Limits(options.megabytes_per_second * 1e6, options.kept_for * 86400))
        if published:
            published.restore(folder)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    except TransientError as error:
        # Beginning anew would throw away what is only out of reach for the moment.
        print(f"error: {error}", file=sys.stderr)
        return EXIT_RETRY
    folder.mkdir(parents=True, exist_ok=True)
    publisher = _Publisher(published, folder, options.every, options.look) if published else None
    return _run(command, folder, publisher, options.last_word)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m limbeck_engines.taskcluster_checkpoints",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--every", type=float, default=1800, metavar="SECONDS", help="at most one checkpoint in that time")
    add("--kept-for", type=float, default=2, metavar="DAYS", help="how long published checkpoints are kept")
    add("--megabytes-per-second", type=float, default=0, metavar="MB", help="bandwidth of publishing (default: all)")
    add("--last-word", type=float, default=90, metavar="SECONDS", help="for publishing after the command was stopped")
    add("--look", type=float, default=5, metavar="SECONDS", help="between two looks into the folder")
    add("command", nargs=argparse.REMAINDER, help="-- and the command")
    return parser


def _published(limits: Limits) -> PublishedSets | None:
    """The sets of this task; None where there is no Taskcluster around."""
    proxy, task_id, run = (os.environ.get(name) for name in ("TASKCLUSTER_PROXY_URL", "TASK_ID", "RUN_ID"))
    if not proxy or not task_id or not (run or "").isdigit():
        if os.environ.get("TASKCLUSTER_ROOT_URL"):
            logger.warning("checkpoints: not published, as the task has no taskcluster-proxy (TASKCLUSTER_PROXY_URL)")
        return None
    return PublishedSets(Deployment(proxy), task_id, int(run or 0), limits)


def _run(command: Sequence[str], folder: Path, publisher: "_Publisher | None", last_word: float) -> int:
    if not command:
        print("error: no command is given: write -- and the command", file=sys.stderr)
        return EXIT_FAILED
    stopped = threading.Event()
    process: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, frame: FrameType | None) -> None:
        stopped.set()
        if process is not None:
            process.send_signal(number)

    earlier = {number: signal.signal(number, pass_on) for number in _SIGNALS}
    try:
        try:
            process = subprocess.Popen(command, env={**os.environ, FOLDER: str(folder)})
        except OSError as error:
            print(f"error: cannot start {command[0]}: {error.strerror}", file=sys.stderr)
            return EXIT_FAILED
        if publisher:
            publisher.start()
        # A signal that came before the process was there.
        if stopped.is_set():
            process.terminate()
        code = process.wait()
        if publisher:
            publisher.finish(last_word if code else None)
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
    # As a shell tells it.
    return 128 - code if code < 0 else code


class _Publisher:
    """Publishes in a thread of its own what appears in the folder. What fails is said, and tried with the next one."""

    def __init__(self, published: PublishedSets, folder: Path, every: float, look: float) -> None:
        self._published, self._folder, self._every, self._look = published, folder, every, look
        # What is there before the command starts is known already.
        self._newest = next((path.name for path in sets_in(folder)), "")
        self._ended = threading.Event()
        self._give_up_at: float | None = None  # monotonic
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self, patience: float | None) -> None:
        """The command has ended: publish its last checkpoint within `patience` seconds, or (None) nothing more."""
        self._give_up_at = time.monotonic() + (patience or 0.0)
        self._ended.set()
        self._thread.join((patience or 0.0) + self._look)
        if patience and time.monotonic() <= self._give_up_at:
            thread = threading.Thread(target=self._publish_newest, daemon=True)
            thread.start()
            thread.join(max(0.0, self._give_up_at - time.monotonic()))

    def _watch(self) -> None:
        while not self._ended.wait(self._look):
            if self._publish_newest():
                self._ended.wait(self._every)

    def _publish_newest(self) -> bool:
        """Whether there was a new one to publish."""
        newest = next(iter(sets_in(self._folder)), None)
        if newest is None or newest.name == self._newest:
            return False
        try:
            self._published.publish(newest, self._stopped)
            self._newest = newest.name
        except (UserError, TransientError, OSError) as error:
            logger.warning(f"checkpoints: {newest.name} is not published: {error}")
        return True

    def _stopped(self) -> bool:
        return self._give_up_at is not None and time.monotonic() > self._give_up_at


if __name__ == "__main__":
    sys.exit(main())
