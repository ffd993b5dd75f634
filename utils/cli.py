"""Limbeck: small, fast translation models by distillation.

usage: limbeck COMMAND [flags]

  train CONFIG        run the pipeline that a training config describes (the trigger)
  graph CONFIG        show the tasks of a config without running anything
  diff CONFIG [B]     which tasks differ from another config, or from a run, and why
  status [GROUP]      what ran, runs and waits
  logs TASK           the log of a task, by its label or id (-f follows it)
  runs [RUN]          the runs there are; of one, its trigger and its config
  compare RUN RUN…    the models of several runs side by side: quality, speed, size
  artifacts [NAME]    what a run or a task made, where it lies, or a copy of it
  resume [GROUP]      go on with a run that was interrupted or has failed tasks
  cancel [GROUP]      stop a run
  serve               a page with all runs: graph, logs, curves, scores; --try MODEL: type, and it translates
  translate MODEL     translate lines of text with an exported model
  manifest KIND       the job that trains one model on several machines (slurm, kubernetes)
  config              write a new training config, check one, or print its schema
  preflight CONFIG    everything that can be known before hours of work: data, URLs, disk, GPUs, credentials

`limbeck COMMAND --help` explains each, with examples.
"""

import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "train": "utils.trigger_training",
    "graph": "utils.graph",
    "diff": "utils.diff",
    "status": "utils.status",
    "logs": "utils.logs",
    "runs": "utils.runs",
    "compare": "utils.compare",
    "artifacts": "utils.artifacts",
    "resume": "utils.resume",
    "cancel": "utils.cancel",
    "serve": "utils.serve.command",
    "translate": "utils.translate",
    "manifest": "utils.manifest",
    "config": "utils.config",
    "preflight": "utils.preflight",
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
