"""Show what ran, runs and waits: the tasks of the newest group, or of the one that is named."""

import argparse
import sys
import time
from collections.abc import Sequence

from limbeck_engines.store import TaskRow
from limbeck_engines.task import FAILED, PENDING, SKIPPED
from pipeline.common.progress import format_duration
from utils.common import (
    add_group_argument,
    add_runs_argument,
    command_parser,
    existing_store,
    find_group,
    open_engine,
    run_command,
)

EXAMPLES = """examples:
  limbeck status
  limbeck status --groups
  limbeck status VfLPTQDlRJCdpHRkpkQ2mA --failed
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and print the state."""
    parser = command_parser("status", __doc__, EXAMPLES)
    add_group_argument(parser)
    parser.add_argument("--groups", action="store_true", help="list all groups instead")
    parser.add_argument("--failed", action="store_true", help="only what failed or was skipped")
    add_runs_argument(parser)
    options = parser.parse_args(arguments)
    return run_command(lambda: _status(options))


def _status(options: argparse.Namespace) -> int:
    store = existing_store(options.runs)
    if options.groups:
        for row in store.groups():
            created = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.created))
            print(f"{row.group_id}  {created}  {row.state:<11}  {row.name}")
        return 0
    group = find_group(store, options.group)
    status = open_engine(store, group).status(group.group_id)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(status.counts.items()))
    print(f"{status.group.name} ({status.group.group_id}): {status.group.state}; {counts}")
    if group.url:
        print(f"  {group.url}")
    for task in status.tasks:
        if not options.failed or task.state in (FAILED, SKIPPED):
            print(f"  {task.state:<10} {task.label}{_details(task)}")
    return 0


def _details(task: TaskRow) -> str:
    if task.state == SKIPPED:
        return f"  (needs {task.reason})"
    details = []
    if task.started and task.state != PENDING:
        details.append(format_duration((task.finished or time.time()) - task.started))
    if task.reason:
        details.append(task.reason)
    return f"  ({'; '.join(details)})" if details else ""


if __name__ == "__main__":
    sys.exit(main())
