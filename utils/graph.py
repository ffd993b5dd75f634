"""Show the task graph of a training config without running anything.

With a folder of runs, every task is marked: reused, download (it brings something from outside), run, or not needed.

Formats: `tree` (text), `json` (label to task with its full definition, the shape that taskgraph's own --json prints),
`dot` (Graphviz), `mermaid`, and `html` (a page with a drawing, all in one file).
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from taskgraph.taskgraph import TaskGraph

from limbeck_taskgraph.generate import generate_graph
from limbeck_taskgraph.reuse import Plan
from utils.common import (
    add_config_argument,
    add_runs_argument,
    add_target_argument,
    command_parser,
    open_store,
    read_config,
    run_command,
)
from utils.graph_html import COLOURS, graph_page
from utils.plan import NOT_NEEDED, add_plan_arguments, place_of, plan_run, wishes_of

EXAMPLES = """examples:
  limbeck graph configs/demo-en-de.yml
  limbeck graph configs/demo-en-de.yml --target-stage train-teacher-model
  limbeck graph configs/demo-en-de.yml --format html --output graph.html
  python -m utils.graph --config configs/demo-en-de.yml --format json | jq 'keys'
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and print the graph."""
    parser = command_parser("graph", __doc__, EXAMPLES)
    add_config_argument(parser)
    parser.add_argument("--format", choices=list(FORMATS), default="tree")
    add_target_argument(parser)
    add_runs_argument(parser)
    add_plan_arguments(parser)
    parser.add_argument("--output", type=Path, help="write there instead of printing")
    options = parser.parse_args(arguments)
    return run_command(lambda: _show(options))


def _show(options: argparse.Namespace) -> int:
    config = read_config(options)
    graph = generate_graph(config)
    if store := open_store(options.runs):
        mark(graph, plan_run(store, graph, config, wishes_of(options)))
    text = FORMATS[options.format](graph)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    return 0


def mark(graph: TaskGraph, plan: Plan) -> None:
    """Note each task's place in a plan as its attribute `plan`."""
    for task in graph:
        task.attributes["plan"] = place_of(graph, plan, task.label)


def tree(graph: TaskGraph) -> str:
    """Every task under what it reads, in an order in which they could run; indented by depth."""
    depths = task_depths(graph)
    lines = [f"{len(graph.tasks)} tasks, {max(depths.values(), default=-1) + 1} levels deep"]
    for label in sorted(graph.tasks, key=lambda label: (depths[label], label)):
        needs = sorted(set(graph.tasks[label].dependencies.values()))
        shown = ", ".join(needs[:4]) + (f" and {len(needs) - 4} more" if len(needs) > 4 else "")
        place = graph.tasks[label].attributes.get("plan")
        lines.append(
            "  " * depths[label] + label + (f"  [{place}]" if place else "") + (f"  <- {shown}" if needs else "")
        )
    return "\n".join(lines) + "\n"


def task_depths(graph: TaskGraph) -> dict[str, int]:
    """How many tasks at least have to run one after the other before each task."""
    depths: dict[str, int] = {}
    for label in graph.graph.visit_postorder():
        depths[label] = 1 + max((depths[dep] for dep in graph.tasks[label].dependencies.values()), default=-1)
    return depths


def dot(graph: TaskGraph) -> str:
    """Graphviz' language; `dot -Tsvg` draws it."""
    lines = ["digraph limbeck {", "  rankdir=LR;", '  node [shape=box, fontname="sans-serif"];']
    for label in sorted(graph.tasks):
        place = graph.tasks[label].attributes.get("plan")
        marked = f' [color="{COLOURS[place]}", tooltip="{place}"]' if place else ""
        lines.append(f"  {json.dumps(label)}{marked};")
    lines += [f"  {json.dumps(dep)} -> {json.dumps(label)};" for label, dep in edges(graph)]
    return "\n".join([*lines, "}"]) + "\n"


def mermaid(graph: TaskGraph) -> str:
    """Mermaid's flowchart language, as Markdown pages draw it."""
    names = {label: f"t{number}" for number, label in enumerate(sorted(graph.tasks))}
    lines = ["flowchart LR"]
    lines += [f'  {name}["{label}"]' for label, name in names.items()]
    lines += [f"  {names[dep]} --> {names[label]}" for label, dep in edges(graph)]
    for place, colour in COLOURS.items():
        if members := [name for label, name in names.items() if graph.tasks[label].attributes.get("plan") == place]:
            style = ",stroke-dasharray:4" if place == NOT_NEEDED else ""
            lines.append(f"  classDef {place.replace(' ', '_')} stroke:{colour},stroke-width:2px{style}")
            lines.append(f"  class {','.join(members)} {place.replace(' ', '_')}")
    return "\n".join(lines) + "\n"


def edges(graph: TaskGraph) -> list[tuple[str, str]]:
    """(task, what it reads) pairs, sorted."""
    return sorted({(label, dep) for label, dep, _ in graph.graph.edges})


def _json(graph: TaskGraph) -> str:
    return json.dumps(graph.to_json(), sort_keys=True, indent=2, separators=(",", ": ")) + "\n"


FORMATS = {"tree": tree, "json": _json, "dot": dot, "mermaid": mermaid, "html": graph_page}

if __name__ == "__main__":
    sys.exit(main())
