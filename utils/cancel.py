"""Stop a run, also one that another terminal started. Nothing finished is lost: `limbeck resume` goes on."""

import argparse
import sys
from collections.abc import Sequence

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
  limbeck cancel
  limbeck cancel VfLPTQDlRJCdpHRkpkQ2mA
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and cancel."""
    parser = command_parser("cancel", __doc__, EXAMPLES)
    add_group_argument(parser)
    add_runs_argument(parser)
    options = parser.parse_args(arguments)
    return run_command(lambda: _cancel(options))


def _cancel(options: argparse.Namespace) -> int:
    store = existing_store(options.runs)
    group = find_group(store, options.group)
    open_engine(store, group).cancel(group.group_id)
    print(f"{group.name} ({group.group_id}) is cancelled; limbeck resume {group.group_id} goes on with it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
