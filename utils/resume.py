"""Go on with a run: what failed, was skipped, cancelled or interrupted runs again, what is finished does not."""

import argparse
import sys
from collections.abc import Sequence

from limbeck_engines.display import open_display
from utils.common import (
    add_group_argument,
    add_runs_argument,
    command_parser,
    existing_store,
    find_group,
    open_engine,
    run_command,
)
from utils.finish import finish_run, handed_over

EXAMPLES = """examples:
  limbeck resume
  limbeck resume VfLPTQDlRJCdpHRkpkQ2mA
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = command_parser("resume", __doc__, EXAMPLES)
    add_group_argument(parser)
    parser.add_argument("--wait", action="store_true", help="stay until the run has ended, whatever the engine")
    add_runs_argument(parser)
    options = parser.parse_args(arguments)
    return run_command(lambda: _resume(options))


def _resume(options: argparse.Namespace) -> int:
    store = existing_store(options.runs)
    group = find_group(store, options.group)
    engine = open_engine(store, group)
    engine.restart(group.group_id)
    if not (engine.attended or options.wait):
        return handed_over(engine, group.group_id)
    if not engine.run(group.group_id, open_display()).succeeded:
        return 1
    return finish_run(engine, {task.label: task.task_id for task in engine.store.tasks(group.group_id)})


if __name__ == "__main__":
    sys.exit(main())
