"""Write a training config, check one before it runs, or print its schema.

  new SRC TRG     a commented config for a language pair, with the data sets that catalogues have for it
  check CONFIG    every error of a config at once, each with its line
  schema          the definition of the config: as JSON Schema, or as a table

`limbeck config COMMAND --help` explains each. `limbeck preflight CONFIG` asks the world as well: data sets, disk, GPUs.
"""

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence

EXAMPLES = """examples:
  limbeck config new en de --name first-try
  limbeck config check first-try.yml
  limbeck config schema > training-config.schema.json
"""
COMMANDS = {"new": "utils.config_new", "check": "utils.config_check", "schema": "utils.schema"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the config commands; returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] not in COMMANDS:
        parser = argparse.ArgumentParser(
            prog="limbeck config",
            description=__doc__,
            epilog=EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            usage=f"limbeck config {{{','.join(COMMANDS)}}} …",
        )
        parser.parse_args([word for word in words if word in ("-h", "--help")])
        close = difflib.get_close_matches(words[0], COMMANDS, n=1) if words else []
        hint = f"; did you mean {close[0]}?" if close else ""
        found = f"unknown command {words[0]!r}" if words else "no command"
        print(f"error: limbeck config: {found}{hint} Commands: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    code: int = importlib.import_module(COMMANDS[words[0]]).main(words[1:])
    return code


if __name__ == "__main__":
    sys.exit(main())
