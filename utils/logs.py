"""Show the log of a task: the newest of that label, or the one with that id."""

import argparse
import sys
from collections.abc import Sequence

from utils.common import add_runs_argument, command_parser, existing_store, find_task, open_engine, run_command

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
    store = existing_store(options.runs)
    task = find_task(store, options.task)
    engine = open_engine(store, store.group(task.group_id))
    for line in engine.log_lines(task.task_id, follow=options.follow):
        sys.stdout.write(line)
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
