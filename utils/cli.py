"""Limbeck: small, fast translation models by distillation.

usage: limbeck COMMAND [flags]

  train CONFIG        run the pipeline that a training config describes (the trigger)
  graph CONFIG        show the tasks of a config without running anything
  status [GROUP]      what ran, runs and waits
  logs TASK           the log of a task, by its label or id (-f follows it)
  artifacts [TASK]    what a task made, and where it lies
  resume [GROUP]      go on with a run that was interrupted or has failed tasks
  cancel [GROUP]      stop a run
  translate MODEL     translate lines of text with an exported model
  manifest KIND       the job that trains one model on several machines (slurm, kubernetes)
  schema              the training config as JSON Schema, or as a table

`limbeck COMMAND --help` explains each, with examples.
"""

import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "train": "utils.trigger_training",
    "graph": "utils.graph",
    "status": "utils.status",
    "logs": "utils.logs",
    "artifacts": "utils.artifacts",
    "resume": "utils.resume",
    "cancel": "utils.cancel",
    "translate": "utils.translate",
    "manifest": "utils.manifest",
    "schema": "utils.schema",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(__doc__)
        return 0
    if words[0] not in COMMANDS:
        import difflib

        close = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        print(f"error: unknown command {words[0]!r}.{hint} Commands: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    module = importlib.import_module(COMMANDS[words[0]])
    code: int = module.main(words[1:])
    return code


if __name__ == "__main__":
    sys.exit(main())
