"""Show which tasks of two training configs differ and why, or how a config differs from a run.

What is said of the second (B) is seen from the first (A); a run is what came before, the config what is now wanted.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence

from taskgraph.taskgraph import TaskGraph

from limbeck_engines.task import DONE
from limbeck_taskgraph.differences import Meaning, differences
from limbeck_taskgraph.generate import generate_graph
from limbeck_taskgraph.reuse import words_of
from pipeline.common.errors import UserError
from utils.common import (
    add_runs_argument,
    add_target_argument,
    command_parser,
    find_group,
    open_store,
    read_config_file,
    run_command,
)
from utils.plan import plan_run
from utils.plan_text import group_by_reasons, name_tasks

EXAMPLES = """examples:
  limbeck diff configs/demo-en-de.yml my.yml
  limbeck diff my.yml
  limbeck diff my.yml --run VfLPTQDl
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and print the differences."""
    parser = command_parser("diff", __doc__, EXAMPLES)
    parser.add_argument("config", metavar="CONFIG_A", help="a training config")
    parser.add_argument("other", metavar="CONFIG_B", nargs="?", help="a second one; without it, a run is compared")
    parser.add_argument("--run", metavar="RUN", help="id of a run, or its beginning (default: the newest)")
    add_target_argument(parser)
    add_runs_argument(parser)
    options = parser.parse_args(arguments)
    return run_command(lambda: _diff(options))


def _diff(options: argparse.Namespace) -> int:
    if options.other and options.run:
        raise UserError("either a second config or --run")
    if options.other:
        old = _meanings(_graph(options.config, options))
        print(describe(old, _graph(options.other, options), options.config, options.other))
    else:
        store = open_store(options.runs)
        if store is None:
            raise UserError(f"nothing has run in {options.runs} yet: name a second config, or the folder with --runs")
        group = find_group(store, options.run)
        rows = store.run_tasks(group.group_id).values()
        old = {row.label: row.definition["extra"]["limbeck"] for row in rows if row.state in DONE}
        print(describe(old, _graph(options.config, options), f"run {group.group_id}", options.config))
    return 0


def _graph(path: str, options: argparse.Namespace) -> TaskGraph:
    """A config's graph; its tasks mean what they mean with the finished tasks that the config names."""
    config = read_config_file(path, options)
    graph = generate_graph(config)
    store = open_store(options.runs)
    if config.previous_group_ids or config.existing_tasks:
        if store is None:
            raise UserError(f"{path} names finished tasks, but nothing has run in {options.runs} yet")
        plan_run(store, graph, config)
    return graph


def _meanings(graph: TaskGraph) -> dict[str, Meaning]:
    return {task.label: task.task["extra"]["limbeck"] for task in graph}


def describe(old: Mapping[str, Meaning], new: TaskGraph, old_name: str, new_name: str) -> str:
    """What was removed, added and changed from the one to the other, and why; a line for all that did not."""
    changed = {
        task.label: why
        for task in new
        if task.label in old
        and (why := differences(task.task["extra"]["limbeck"], old[task.label], words_of(new, task.label)))
    }
    added = {task.label: [f"is not in {old_name}"] for task in new if task.label not in old}
    removed = sorted(old.keys() - new.tasks.keys())
    lines = [f"from {old_name} to {new_name}: {len(changed)} changed, {len(added)} added, {len(removed)} removed"]
    for sign, reasons in (("changed", changed), ("added", added)):
        for labels, given in group_by_reasons(new, reasons):
            lines.append(f"  {sign:<8}  {name_tasks(labels)}")
            lines += [f"            {reason}" for reason in given if sign == "changed"]
    lines += [f"  removed   {label}" for label in removed]
    return "\n".join([*lines, f"{len(new.tasks) - len(changed) - len(added)} tasks are the same"])


if __name__ == "__main__":
    sys.exit(main())
