"""Run the pipeline that a training config describes: the trigger.

Renders the task graph, shows which tasks will be reused, which will run and why, and what they will take, asks, and
runs them, on this machine unless --engine names another engine. Finished work is found by the digest of what each task
means, so running the same command again goes on where the last run stood, whatever ended it.
"""

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import slugid
import yaml

from limbeck_engines import ENGINES, engine_class
from limbeck_engines.display import open_display
from limbeck_taskgraph.generate import generate_graph
from limbeck_taskgraph.reuse import apply_plan
from limbeck_taskgraph.training_config import TrainingConfig
from pipeline.common.errors import UserError
from pipeline.model.decoding import decoding_options
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
from utils.engine_tasks import check_inputs, engine_tasks, gpu_count
from utils.finish import finish_run, handed_over
from utils.forecast import forecast
from utils.plan import add_plan_arguments, plan_run, wishes_of
from utils.plan_text import count_places, describe_plan, plan_json
from utils.trigger_log import log_trigger

EXAMPLES = """examples:
  limbeck train configs/demo-en-de.yml
  limbeck train configs/demo-en-de.yml --dry-run
  limbeck train configs/demo-en-de.yml --force-stage train-teacher-model --yes
  limbeck train my.yml --existing-task build-vocab-en-de=VfLPTQDlRJCdpHRkpkQ2mA
  python -m utils.trigger_training --config configs/demo-en-de.yml --engine local --yes
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, plan and run."""
    parser = command_parser("train", __doc__, EXAMPLES)
    add_config_argument(parser)
    add_runs_argument(parser)
    add_target_argument(parser)
    parser.add_argument("--engine", choices=list(ENGINES), default="local", help="where tasks run (default: local)")
    parser.add_argument("--wait", action="store_true", help="stay until the run has ended, whatever the engine")
    parser.add_argument("--dry-run", action="store_true", help="show the plan and stop")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON (with --dry-run or --yes)")
    parser.add_argument(
        "--no-probe", action="store_true", help="do not ask whether what is fetched is there, and how large it is"
    )
    add_plan_arguments(parser)
    for name in ENGINES:
        engine_class(name).add_arguments(parser.add_argument_group(f"of the engine {name}"))
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(words)
    return run_command(lambda: _train(options, words))


def _train(options: argparse.Namespace, words: Sequence[str]) -> int:
    if options.json and not (options.dry_run or options.yes):
        raise UserError("--json is for programs, which cannot be asked: give --dry-run or --yes too")
    wishes = wishes_of(options)
    config = read_config(options)
    engine = engine_class(options.engine).from_options(options.runs, options)
    graph = generate_graph(config)
    plan = engine.plan(graph, config) or plan_run(engine.store, graph, config, wishes)
    expected = forecast(engine.store, graph, plan, probe=not options.no_probe)
    subgraph = apply_plan(graph, plan)
    if engine.shares_files:
        check_inputs(engine.store, subgraph)
    else:
        expected = dataclasses.replace(expected, disk=0, estimates={})
    group_id = slugid.nice() if plan.run and not options.dry_run else None
    if options.json:
        print(json.dumps(plan_json(graph, plan, expected, group_id), indent=2, ensure_ascii=False), flush=True)
    else:
        print(describe_plan(graph, plan, expected), flush=True)
    if options.dry_run:
        return 0
    if plan.run and not options.yes:
        if sys.stdin is None or not sys.stdin.isatty():
            print("error: nobody can be asked here: give --yes to start, or --dry-run", file=sys.stderr)
            return EXIT_WRONG_INPUT
        if not _confirmed():
            return 0
    counts = count_places(graph, plan)
    # With --json, standard output holds the plan and nothing else.
    with contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext():
        path = Path(config_path(options))
        if group_id is None:
            log_trigger(engine.store, path, config.experiment.name, None, counts, words)
            return finish_run(engine, plan.reused)
        if engine.attended:
            check_precision(config, gpu_count())
        tasks = engine_tasks(subgraph, gpu_count() if engine.attended else None)
        text = path.read_text("utf-8") if engine.shares_files else config_text(config)
        group_id = engine.submit(group_id, config.experiment.name, tasks, text)
        log_trigger(engine.store, path, config.experiment.name, group_id, counts, words)
        if not (engine.attended or options.wait):
            return handed_over(engine, group_id)
        if not engine.run(group_id, open_display()).succeeded:
            return 1
        labels = {row.label: row.task_id for row in engine.store.tasks(group_id)}
        return finish_run(engine, {**plan.reused, **labels})


def config_text(config: TrainingConfig) -> str:
    """The config as it stands after all flags, for an engine that renders the graph itself."""
    values = config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return yaml.safe_dump(values, allow_unicode=True, sort_keys=False)


def _confirmed() -> bool:
    while True:
        try:
            answer = input("Start training? [Y/n] ").strip().lower()
        except (EOFError, KeyboardInterrupt):
            print()
            return False
        if answer in ("", "y", "yes"):
            return True
        if answer in ("n", "no"):
            return False


def check_precision(config: TrainingConfig, gpus: int) -> None:
    """Raises UserError when a decoder is to work in float16 on a machine without a GPU: days before it would fail."""
    for key, values in config.marian_args.model_dump(by_alias=True).items():
        if key.startswith("decoding-") and not gpus and decoding_options(values).precision == "float16":
            raise UserError(f"marian-args.{key}: float16 needs a GPU and this machine shows none; leave precision out")


if __name__ == "__main__":
    sys.exit(main())
