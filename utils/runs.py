"""List the runs of a folder, newest first; of one that is named, its trigger, its tasks' states and its config."""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from limbeck_engines.base import GroupStatus
from limbeck_engines.task import DONE
from pipeline.common.progress import format_duration
from utils.common import (
    add_group_argument,
    add_runs_argument,
    command_parser,
    find_group,
    open_engine,
    open_store,
    run_command,
)
from utils.trigger_log import read_triggers

EXAMPLES = """examples:
  limbeck runs
  limbeck runs VfLPTQDl
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and print the runs."""
    parser = command_parser("runs", __doc__, EXAMPLES)
    add_group_argument(parser)
    add_runs_argument(parser)
    options = parser.parse_args(arguments)
    return run_command(lambda: _runs(options))


def _runs(options: argparse.Namespace) -> int:
    store = open_store(options.runs)
    if store is None:
        print(f"nothing has run in {options.runs} yet")
        return 0
    triggers = read_triggers(store)
    if not options.group:
        for group in store.groups():
            print(_line(open_engine(store, group).status(group.group_id), triggers.get(group.group_id, {})))
        return 0
    group = find_group(store, options.group)
    status = open_engine(store, group).status(group.group_id)
    print(_line(status, triggers.get(group.group_id, {})))
    print("tasks:   " + ", ".join(f"{count} {state}" for state, count in sorted(status.counts.items())))
    if trigger := triggers.get(group.group_id):
        print("trigger: " + json.dumps(trigger, ensure_ascii=False))
    print("config:")
    print("".join(f"  {line}\n" for line in group.config.splitlines()), end="")
    return 0


def _line(status: GroupStatus, trigger: Mapping[str, Any]) -> str:
    """Id, date, name, state, tasks done, duration and the path of the config, where the trigger's line tells it."""
    group = status.group
    created = time.strftime("%Y-%m-%d %H:%M", time.localtime(group.created))
    done = sum(status.counts[state] for state in DONE)
    words = [group.group_id, created, group.name, group.state, f"{done} of {len(status.tasks)} tasks done"]
    if seconds := _duration(status):
        words.append(format_duration(seconds))
    return "  ".join([*words, *([trigger["config"]] if trigger else [])])


def _duration(status: GroupStatus) -> float:
    """Seconds from the start of the first task to the end of the last, or to now while one runs; 0 before."""
    started = [row.started for row in status.tasks if row.started]
    if not started:
        return 0.0
    if status.group.state == "running":
        return time.time() - min(started)
    return max([row.finished for row in status.tasks if row.finished], default=min(started)) - min(started)


if __name__ == "__main__":
    sys.exit(main())
