"""What will run and what will be reused, and why: decided before anything runs."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from taskgraph.graph import Graph
from taskgraph.optimize.base import get_subgraph
from taskgraph.taskgraph import TaskGraph

# digest -> id of a finished task whose artifacts are there
Lookup = Callable[[str], str | None]
# label -> the meaning (extra.limbeck) of the nearest earlier task
Earlier = Callable[[str], Mapping[str, Any] | None]


@dataclass
class Plan:
    """The decision: label -> task id for `reused`, label -> reason for `run`. What neither names is not needed."""

    reused: dict[str, str] = field(default_factory=dict)
    run: dict[str, str] = field(default_factory=dict)


def make_plan(
    graph: TaskGraph,
    targets: Iterable[str],
    lookup: Lookup,
    earlier: Earlier,
    fresh: Callable[[str], str | None] = lambda label: None,
) -> Plan:
    """Walk from the targets to what they need and stop at everything that is already there.

    `fresh(label)` gives the reason why a task must run anew whatever there is, or None; all that depends on such a
    task runs too. A reused task's own inputs are not looked at: they may
    be gone.
    """
    forced = _forced(graph, fresh)
    plan = Plan()
    queue = sorted(targets)
    while queue:
        label = queue.pop()
        if label in plan.run or label in plan.reused:
            continue
        task = graph.tasks[label]
        found = None if label in forced else lookup(task.attributes["digest"])
        if found:
            plan.reused[label] = found
            continue
        plan.run[label] = forced.get(label) or _difference(task.task["extra"]["limbeck"], earlier(label))
        queue.extend(sorted(task.dependencies.values()))
    return plan


def _forced(graph: TaskGraph, fresh: Callable[[str], str | None]) -> dict[str, str]:
    forced: dict[str, str] = {}
    for label in graph.graph.visit_postorder():
        reason = fresh(label)
        upstream = next((dep for dep in sorted(graph.tasks[label].dependencies.values()) if dep in forced), None)
        if reason:
            forced[label] = reason
        elif upstream:
            forced[label] = f"{upstream} runs anew"
    return forced


def _difference(meaning: Mapping[str, Any], earlier: Mapping[str, Any] | None) -> str:
    """The first thing in which a task differs from the nearest earlier one of its label, as a sentence's end."""
    if earlier is None:
        return "has not run before"
    if earlier["digest"] == meaning["digest"]:
        return "what it made is gone or damaged"
    if earlier["version"] != meaning["version"]:
        return f"the stage's version is {meaning['version']}, was {earlier['version']}"
    for section in ("parameters", "variables"):
        new, old = meaning[section], earlier[section]
        for key in sorted(new.keys() | old.keys()):
            if new.get(key) != old.get(key):
                return f"{key} is {_show(new.get(key))}, was {_show(old.get(key))}"
    for name in sorted(meaning["inputs"].keys() | earlier["inputs"].keys()):
        new, old = meaning["inputs"].get(name, {}), earlier["inputs"].get(name, {})
        for label in sorted(new.keys() | old.keys()):
            if label not in old:
                return f"its input {name} now has {label}"
            if label not in new:
                return f"its input {name} no longer has {label}"
            if new[label] != old[label]:
                return f"its input {label} changes"
    if meaning["languages"] != earlier["languages"]:
        return "the languages differ"
    return "an input differs"


def _show(value: Any) -> str:
    return "not set" if value is None else str(value)


def apply_plan(graph: TaskGraph, plan: Plan) -> TaskGraph:
    """The graph of the tasks to run, keyed by new task ids, with all references to other tasks filled in."""
    needed = plan.run.keys() | plan.reused.keys()
    edges = frozenset(edge for edge in graph.graph.edges if edge[0] in plan.run)
    part = TaskGraph({label: graph.tasks[label] for label in needed}, Graph(frozenset(needed), edges))
    return get_subgraph(part, set(), set(plan.reused), dict(plan.reused), "none")
