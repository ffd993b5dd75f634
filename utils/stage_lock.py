"""Bring taskcluster/stages.lock.json up to date after a change to the pipeline's sources.

Where a stage's results change, raise its `version` in kind.yml first and run this without flags. Where they do not (a
refactor, a message, a faster way to the same bytes), say so with --changes-no-result.
"""

import argparse
import json
import sys
from collections.abc import Sequence

from limbeck_taskgraph.stage_lock import LOCK_FILE, current_lock, read_lock, unexplained_changes


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and rewrite the lock file."""
    parser = argparse.ArgumentParser(prog="python -m utils.stage_lock", description=__doc__)
    parser.add_argument("--changes-no-result", action="store_true", help="the changed sources give the same results")
    options = parser.parse_args(arguments)
    current = current_lock()
    changed = unexplained_changes(read_lock(), current)
    if changed and not options.changes_no_result:
        print(
            "error: the sources of these stages changed, but not their version: "
            f"{', '.join(changed)}. Raise `version` in their kind.yml, or run with --changes-no-result",
            file=sys.stderr,
        )
        return 1
    LOCK_FILE.write_text(json.dumps(current, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
