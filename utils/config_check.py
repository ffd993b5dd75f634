"""Check training configs without running anything: every error at once, each with its line and key.

Exit code 0 when all are right (warnings do not count), 2 otherwise.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from limbeck_taskgraph.config_file import ConfigError, load_training_config
from limbeck_taskgraph.generate import generate_graph
from limbeck_taskgraph.target_tasks import UnknownStage
from limbeck_taskgraph.training_config import TrainingConfig
from pipeline.common.errors import UserError
from utils.check_config import check_values
from utils.common import (
    EXIT_WRONG_INPUT,
    command_parser,
    default_runs,
    open_store,
    run_command,
    with_absolute_paths,
)
from utils.task_uris import with_local_tasks

EXAMPLES = """examples:
  limbeck config check configs/demo-en-de.yml
  limbeck config check configs/*.yml --json | jq '.[] | select(.errors != [])'
"""


@dataclass(frozen=True)
class Problem:
    """One error or warning. `line` counts from 1; None where no line can be named. `message` begins with the key."""

    line: int | None
    message: str


@dataclass
class ConfigCheck:
    """What is wrong with a config, and what it would run where nothing is."""

    config: str
    target_stage: str | None = None
    tasks: int | None = None
    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and check every config that it names."""
    parser = command_parser("config check", __doc__, EXAMPLES)
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="a training config (YAML)")
    parser.add_argument("--json", action="store_true", help="a list with an object for each config, for programs")
    options = parser.parse_args(arguments)
    return run_command(lambda: _check(options))


def _check(options: argparse.Namespace) -> int:
    checks = [check_config(path) for path in options.configs]
    if options.json:
        print(json.dumps([asdict(check) for check in checks], ensure_ascii=False, indent=2))
    else:
        for check in checks:
            _print(check)
    return EXIT_WRONG_INPUT if any(check.errors for check in checks) else 0


def _print(check: ConfigCheck) -> None:
    for kind, problems in (("warning", check.warnings), ("error", check.errors)):
        for problem in problems:
            place = check.config if problem.line is None else f"{check.config}:{problem.line}"
            print(f"{place}: {kind}: {problem.message}", file=sys.stderr)
    if check.errors:
        count = len(check.errors)
        print(f"{check.config}: {count} error{'s' if count > 1 else ''}", file=sys.stderr)
    else:
        print(f"{check.config}: ok: {check.tasks} tasks up to {check.target_stage}")


def check_config(path: str) -> ConfigCheck:
    """Check one config: its form, its values, and that its task graph can be made."""
    check = ConfigCheck(path)
    try:
        config = load_training_config(path)
    except ConfigError as error:
        of_form = [_with_line_of_message(path, line) for line in str(error).split("\n")]
        check.errors = _by_line([*of_form, *_errors_beside_form(path)])
        return check
    check.target_stage = config.target_stage
    text = Path(path).read_text(encoding="utf-8")
    check.warnings = [_located(text, warning) for warning in config.warnings()]
    check.errors = _by_line([_located(text, message) for message in value_errors(config)])
    if not check.errors:
        try:
            known = with_local_tasks(config, open_store(default_runs()))
            check.tasks = len(generate_graph(with_absolute_paths(known)).tasks)
        except (UserError, UnknownStage) as error:
            check.errors = [_located(text, str(error))]
    return check


def _by_line(problems: list[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: problem.line or 0)


def _errors_beside_form(path: str) -> list[Problem]:
    """What is wrong with the values of a config whose form is wrong, too, as far as that can be told."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        config = _well_formed_part(yaml.safe_load(text))
    except (OSError, ValueError, yaml.YAMLError):
        return []  # no config at all, which is said already
    return [_located(text, message) for message in value_errors(config)] if config else []


def _well_formed_part(values: Any) -> TrainingConfig | None:
    """The config without its keys that are unknown or of the wrong form; None where nothing is left to be one."""
    try:
        return TrainingConfig.model_validate(values)
    except ValidationError as errors:
        wrong = {_written_part(values, error["loc"]) for error in errors.errors()} - {()}
    for place in wrong:
        section = values
        for key in place[:-1]:
            section = section.get(key, {})
        section.pop(place[-1], None)
    return _well_formed_part(values) if wrong else None


def _written_part(values: Any, place: Sequence[int | str]) -> tuple[int | str, ...]:
    """The part of an error's place that stands in the config, up to a list: its entries must keep their numbers."""
    found: list[int | str] = []
    for key in place:
        if not isinstance(values, dict) or key not in values:
            break
        found.append(key)
        values = values[key]
    return tuple(found)


def value_errors(config: TrainingConfig) -> list[str]:
    """What the pipeline's steps find wrong with a config's values: lines that begin with the key's path."""
    try:
        check_values(config)
    except ConfigError as error:
        return str(error).split("\n")
    return []


def key_line(text: str, message: str) -> int | None:
    """The line (from 1) of a YAML text on which the key stands that a message begins with (`datasets.train.0: …`).

    Of a path that is not in the text as a whole, the line of its longest part that is; None when nothing of it is.
    """
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    line: int | None = None
    while node is not None:
        step = max(_steps(node, message), key=lambda found: len(found[0]), default=None)
        if step is None:
            break
        key, line, node = step
        if message[len(key)] == ":":
            break
        message = message[len(key) + 1 :]
    return line


def _steps(node: Any, message: str) -> list[tuple[str, int, Any]]:
    """Entries of a node (key, line, value) that a message goes through; keys may have dots and colons themselves."""
    if isinstance(node, yaml.MappingNode):
        entries = [(str(key.value), key.start_mark.line + 1, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        entries = [(str(number), value.start_mark.line + 1, value) for number, value in enumerate(node.value)]
    else:
        entries = []
    return [entry for entry in entries if message.startswith((f"{entry[0]}.", f"{entry[0]}: "))]


def _located(text: str, message: str) -> Problem:
    return Problem(key_line(text, message), message)


def _with_line_of_message(path: str, line: str) -> Problem:
    """A line of a ConfigError, which may begin with the file and the line that it is about."""
    match = re.match(rf"{re.escape(path)}:(\d+): ", line)
    return Problem(int(match[1]), line[match.end() :]) if match else Problem(None, line.removeprefix(f"{path}: "))


if __name__ == "__main__":
    sys.exit(main())
