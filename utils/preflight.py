"""Find out, before hours of work, everything about a training config and this machine that can be known.

Data sets exist for the pair and are of a size; URIs under continuation answer; the languages are known; the disk, the
memory, the processors and the GPUs suffice; credentials and packages that the config needs are there. Every finding is
a line: ok, warning or error. Nothing is fetched but sizes. Exit code 0 unless there is an error (then 2).
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial

from taskgraph.taskgraph import TaskGraph

from limbeck_taskgraph.generate import generate_graph
from limbeck_taskgraph.training_config import TrainingConfig
from utils import preflight_machine, preflight_sources
from utils.common import (
    EXIT_WRONG_INPUT,
    add_config_argument,
    add_runs_argument,
    add_target_argument,
    command_parser,
    config_path,
    read_config,
    run_command,
)
from utils.preflight_findings import ERROR, LEVELS, OK, WARNING, Finding

EXAMPLES = """examples:
  limbeck preflight configs/demo-en-de.yml
  limbeck preflight configs/production.yml --runs /data/runs
  limbeck preflight configs/production.yml --json | jq '.findings[] | select(.level == "error")'
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and print the findings."""
    parser = command_parser("preflight", __doc__, EXAMPLES)
    add_config_argument(parser)
    add_runs_argument(parser)
    add_target_argument(parser)
    parser.add_argument("--json", action="store_true", help="one object with all findings, for programs")
    options = parser.parse_args(arguments)
    return run_command(lambda: _preflight(options))


def _preflight(options: argparse.Namespace) -> int:
    config = read_config(options)
    graph = generate_graph(config)
    findings = []
    for check in checks(config, graph, options):
        for finding in check():
            findings.append(finding)
            if not options.json:
                print(f"{finding.level:<8} {finding.subject}: {finding.message}", flush=True)
    counts = {level: sum(finding.level == level for finding in findings) for level in LEVELS}
    if options.json:
        found = [asdict(finding) for finding in findings]
        print(
            json.dumps(
                {"config": config_path(options), "tasks": len(graph.tasks), **counts, "findings": found},
                ensure_ascii=False,
                indent=2,
            )
        )
    else:
        said = [f"{counts[level]} {level}{'' if counts[level] == 1 else 's'}" for level in (ERROR, WARNING)]
        print(f"{', '.join(said)}, {counts[OK]} ok; {len(graph.tasks)} tasks up to {config.target_stage}")
    return EXIT_WRONG_INPUT if counts[ERROR] else 0


def checks(
    config: TrainingConfig, graph: TaskGraph, options: argparse.Namespace
) -> Iterator[Callable[[], Iterator[Finding]]]:
    """Everything that is looked at, in the order in which it is told."""
    sources = preflight_sources.Sources()
    yield partial(preflight_sources.check_datasets, graph, sources)
    yield partial(preflight_sources.check_continuation, config, sources)
    yield partial(preflight_sources.check_languages, config)
    yield partial(preflight_machine.check_disk, graph, sources, options.runs)
    yield partial(preflight_machine.check_machine, graph)
    yield partial(preflight_machine.check_gpus, config, graph)
    yield partial(preflight_machine.check_packages, config)
    yield partial(preflight_machine.check_credentials, config)


if __name__ == "__main__":
    sys.exit(main())
