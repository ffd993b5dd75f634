"""Show what a task made and where it lies; without a task, which tasks of the newest group have artifacts."""

import argparse
import sys
from collections.abc import Sequence

from limbeck_engines.base import DONE
from limbeck_engines.local import LocalEngine
from utils.common import add_runs_argument, artifact_folder, command_parser, find_group, find_task, run_command

EXAMPLES = """examples:
  limbeck artifacts
  limbeck artifacts export-en-de
  cp -r $(limbeck artifacts export-en-de --folder)/export my-model
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and list the files."""
    parser = command_parser("artifacts", __doc__, EXAMPLES)
    parser.add_argument("task", nargs="?", help="label or id of a task")
    parser.add_argument("--folder", action="store_true", help="print the folder only")
    add_runs_argument(parser)
    options = parser.parse_args(arguments)
    return run_command(lambda: _artifacts(options))


def _artifacts(options: argparse.Namespace) -> int:
    engine = LocalEngine(options.runs)
    if not options.task:
        for row in engine.store.tasks(find_group(engine.store, None).group_id):
            if row.state in DONE:
                print(f"{row.task_id}  {row.label}")
        return 0
    task = find_task(engine.store, options.task, done=True)
    folder = artifact_folder(engine, task.task_id)
    print(folder)
    if not options.folder:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            print(f"  {path.stat().st_size:>13,}  {path.relative_to(folder)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
