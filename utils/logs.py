"""Show the log of a task: the newest of that label, or the one with that id."""

import argparse
import sys
import time
from collections.abc import Sequence

from limbeck_engines.base import PENDING, RUNNING
from limbeck_engines.local import LocalEngine
from utils.common import add_runs_argument, command_parser, find_task, run_command

EXAMPLES = """examples:
  limbeck logs train-teacher-model-en-de-1
  limbeck logs train-teacher-model-en-de-1 -f
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and print the log."""
    parser = command_parser("logs", __doc__, EXAMPLES)
    parser.add_argument("task", help="label or id of a task")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the task ends")
    add_runs_argument(parser)
    options = parser.parse_args(arguments)
    return run_command(lambda: _logs(options))


def _logs(options: argparse.Namespace) -> int:
    engine = LocalEngine(options.runs)
    task = find_task(engine.store, options.task)
    with engine.log_path(task.task_id).open(encoding="utf-8", errors="replace") as log:
        while True:
            sys.stdout.write(log.read())
            sys.stdout.flush()
            if not options.follow or engine.store.task(task.task_id).state not in (PENDING, RUNNING):
                sys.stdout.write(log.read())
                return 0
            time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
