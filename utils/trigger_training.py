"""Run the pipeline that a training config describes: the trigger.

Renders the task graph, says which tasks will be reused and which will run and why, asks, and runs them on the local
engine. Finished work is found by the digest of what each task means, so running the same command again goes on where
the last run stood, whatever ended it.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import slugid
from taskgraph.taskgraph import TaskGraph

from limbeck_engines.base import Resources, Task
from limbeck_engines.display import open_display
from limbeck_engines.local import LocalEngine
from limbeck_taskgraph.generate import generate_graph, worker_resources
from limbeck_taskgraph.reuse import Plan, apply_plan, make_plan
from limbeck_taskgraph.training_config import TrainingConfig
from pipeline.common.errors import UserError
from pipeline.model.decoding import decoding_options
from utils.common import add_config_argument, add_runs_argument, command_parser, config_path, read_config, run_command
from utils.finish import finish_run

EXAMPLES = """examples:
  limbeck train configs/demo-en-de.yml --yes
  limbeck train configs/demo-en-de.yml --dry-run
  limbeck train configs/demo-en-de.yml --force-stage train-teacher-model
  python -m utils.trigger_training --config configs/demo-en-de.yml --engine local --yes
"""
# What a person wants to see at the end, also when all that gathers them is reused.
RESULTS = ("report", "export")
SIZES = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, plan and run."""
    parser = command_parser("train", __doc__, EXAMPLES)
    add_config_argument(parser)
    add_runs_argument(parser)
    parser.add_argument("--engine", choices=["local"], default="local", help="where tasks run")
    parser.add_argument("--target-stage", help="instead of the config's")
    parser.add_argument("--dry-run", action="store_true", help="say what would run, and why, and stop")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--no-reuse", action="store_true", help="run every task anew")
    parser.add_argument(
        "--force-stage", action="append", default=[], metavar="STAGE", help="run this stage and what depends on it anew"
    )
    parser.add_argument("--cpus", type=int, help="how many processors the run may use (default: all)")
    parser.add_argument("--memory", type=_size, help="how much memory the run may use, such as 16GB (default: all)")
    options = parser.parse_args(arguments)
    return run_command(lambda: _train(options))


def _train(options: argparse.Namespace) -> int:
    config = read_config(options)
    if options.target_stage:
        config = config.model_copy(update={"target_stage": options.target_stage})
    engine = LocalEngine(options.runs, cpus=options.cpus, memory=options.memory)
    graph = generate_graph(config)
    dependents = graph.graph.reverse_links_dict()
    targets = sorted(task.label for task in graph if task.kind in RESULTS or not dependents[task.label])
    plan = plan_run(engine, graph, targets, config, options)
    print(describe_plan(graph, plan))
    if options.dry_run:
        return 0
    if (
        plan.run
        and not options.yes
        and sys.stdin.isatty()
        and input("Run these tasks? [Y/n] ").strip().lower()[:1] == "n"
    ):
        return 0
    if not plan.run:
        return finish_run(engine, plan.reused)
    check_precision(config, gpu_count())
    subgraph = apply_plan(graph, plan)
    group_id = slugid.nice()
    engine.submit(
        group_id, config.experiment.name, engine_tasks(subgraph), Path(config_path(options)).read_text("utf-8")
    )
    if not engine.run(group_id, open_display()).succeeded:
        return 1
    labels = {task.label: task_id for task_id, task in subgraph.tasks.items()}
    return finish_run(engine, {**plan.reused, **labels})


def check_precision(config: TrainingConfig, gpus: int) -> None:
    """Raises UserError when a decoder is to work in float16 on a machine without a GPU: days before it would fail."""
    for key, values in config.marian_args.model_dump(by_alias=True).items():
        if key.startswith("decoding-") and not gpus and decoding_options(values).precision == "float16":
            raise UserError(f"marian-args.{key}: float16 needs a GPU and this machine shows none; leave precision out")


def plan_run(
    engine: LocalEngine, graph: TaskGraph, targets: list[str], config: TrainingConfig, options: argparse.Namespace
) -> Plan:
    """Decide what runs: by digest, but anew for what the config or the command line names."""
    prefix = config.start_task_prefix

    def fresh(label: str) -> str | None:
        task = graph.tasks[label]
        if options.no_reuse:
            return "--no-reuse"
        if task.attributes["stage"] in options.force_stage or task.kind in options.force_stage:
            return "--force-stage"
        if prefix and label.startswith(prefix):
            return f"start-task-prefix is {prefix}"
        return None

    def earlier_meaning(label: str) -> Mapping[str, Any] | None:
        row = engine.store.latest_by_label(label)
        return row.definition["extra"]["limbeck"] if row else None

    return make_plan(graph, targets, engine.store.lookup, earlier_meaning, fresh)


def describe_plan(graph: TaskGraph, plan: Plan) -> str:
    """What is reused and what runs and why, a line for each stage; chunks of the same reason together."""
    lines = [f"{len(plan.reused)} tasks reused, {len(plan.run)} to run"]
    reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
    for label in graph.graph.visit_postorder():
        if label in plan.run:
            kind = graph.tasks[label].kind
            reason = plan.run[label]
            reasons[kind, reason.rsplit(" ", 2)[0] if "/" in label else reason].append(label)
    for (_, _), labels in reasons.items():
        shown = labels[0] if len(labels) == 1 else f"{labels[0]} and {len(labels) - 1} more"
        lines.append(f"  run    {shown}: {plan.run[labels[0]]}")
    if plan.reused:
        lines.append("  reuse  " + ", ".join(sorted({graph.tasks[label].kind for label in plan.reused})))
    return "\n".join(lines)


def engine_tasks(graph: TaskGraph) -> list[Task]:
    """The tasks of a planned graph as an engine takes them, in an order in which they could run."""
    resources = worker_resources()
    gpus = gpu_count()
    if gpus == 0 and any(resources[task.attributes["worker-type"]]["gpus"] for task in graph):
        print("No GPU found: training and translation run on the processors.")
    return [
        Task(
            task_id=task_id,
            label=graph.tasks[task_id].label,
            definition=graph.tasks[task_id].task,
            dependencies=tuple(graph.tasks[task_id].task["dependencies"]),
            digest=graph.tasks[task_id].attributes["digest"],
            resources=_resources(resources[graph.tasks[task_id].attributes["worker-type"]], gpus),
        )
        for task_id in graph.graph.visit_postorder()
    ]


def _resources(wanted: Mapping[str, Any], gpus: int) -> Resources:
    use_gpu = bool(wanted["gpus"] and gpus)
    # With a GPU, a task needs few processors: one for each GPU's data.
    cpus = 1 if use_gpu and wanted["cpus"] == "all" else wanted["cpus"]
    return Resources(cpus=cpus, gpus=wanted["gpus"] if use_gpu else 0, memory=_size(str(wanted["memory"])))


def gpu_count() -> int:
    """How many NVIDIA GPUs this machine shows (without importing torch, which takes seconds)."""
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*"))) if Path("/proc/driver/nvidia/gpus").exists() else 0


def _size(text: str) -> int:
    for unit, factor in SIZES.items():
        if text.upper().endswith(unit):
            try:
                return int(float(text[: -len(unit)]) * factor)
            except ValueError:
                break
    raise argparse.ArgumentTypeError(f"{text!r} is no size: write it like 16GB or 500MB")


if __name__ == "__main__":
    sys.exit(main())
