"""What will run and what will be reused, and why: decided before anything runs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from taskgraph.graph import Graph
from taskgraph.optimize.base import get_subgraph
from taskgraph.taskgraph import TaskGraph

from limbeck_taskgraph.differences import NEVER_RAN, Meaning, differences, nearest
from limbeck_taskgraph.digest import task_digest


class History(Protocol):
    """What is known of earlier runs."""

    def finished(self, digest: str) -> Sequence[str]:
        """Ids of the finished tasks of a digest, newest first."""

    def damage(self, task_id: str) -> str | None:
        """What is wrong with a finished task's artifacts, or None."""

    def earlier(self, label: str) -> Sequence[Meaning]:
        """Meanings of finished tasks of a label, newest first."""


@dataclass(frozen=True)
class NamedTask:
    """A finished task that a person wants used for a label, whatever its digest."""

    task_id: str
    meaning: Meaning


@dataclass(frozen=True)
class Named:
    """Tasks to use by label. `existing` win over everything; `earlier_runs` give way to what must run anew."""

    existing: Mapping[str, NamedTask] = field(default_factory=dict)
    earlier_runs: Mapping[str, NamedTask] = field(default_factory=dict)


@dataclass
class Plan:
    """The decision: label -> task id for `reused`, label -> reasons for `run`. What neither names is not needed.

    `by_name` are the reused labels whose tasks a person named, with what differs between what the config asks for (new)
    and what is used (old).
    """

    reused: dict[str, str] = field(default_factory=dict)
    run: dict[str, list[str]] = field(default_factory=dict)
    by_name: dict[str, list[str]] = field(default_factory=dict)


def make_plan(
    graph: TaskGraph,
    targets: Iterable[str],
    history: History,
    fresh: Callable[[str], str | None] = lambda label: None,
    named: Named = Named(),
) -> Plan:
    """Walk from the targets to what they need and stop at everything that is already there.

    `fresh(label)` gives the reason why a task must run anew whatever there is, or None; all that depends on such a
    task runs too. A reused task's own inputs are not looked at: they may be gone.

    A named task may mean something else than the graph's of its label. The graph's tasks then get the meaning and
    digest that they have with it, so that nobody takes for the graph's own work what was made from another's.
    """
    targets = sorted(targets)
    forced = _forced(graph, fresh, named.existing.keys())
    use = {label: task for label, task in named.earlier_runs.items() if label in graph.tasks and label not in forced}
    use |= named.existing
    own = {task.label: task.task["extra"]["limbeck"] for task in graph}
    damages: dict[str, str] = {}
    while True:
        _set_meanings(graph, own, use)
        plan, damaged = _walk(graph, targets, history, forced, use, damages)
        if not damaged:
            plan.by_name = {
                label: differences(own[label], use[label].meaning, words_of(graph, label)) for label in plan.by_name
            }
            return plan
        damages |= damaged
        use = {label: task for label, task in use.items() if label not in damaged}


def _forced(graph: TaskGraph, fresh: Callable[[str], str | None], existing: Iterable[str]) -> dict[str, str]:
    forced: dict[str, str] = {}
    for label in graph.graph.visit_postorder():
        if label in existing:
            continue
        reason = fresh(label)
        upstream = next((dep for dep in sorted(graph.tasks[label].dependencies.values()) if dep in forced), None)
        if reason:
            forced[label] = reason
        elif upstream:
            forced[label] = f"{upstream} runs anew"
    return forced


def _set_meanings(graph: TaskGraph, own: Mapping[str, Meaning], use: Mapping[str, NamedTask]) -> None:
    """Give every task the meaning and digest that it has when the named tasks stand for those of their labels."""
    digests: dict[str, str] = {}
    for label in graph.graph.visit_postorder():
        if label in use:
            meaning = use[label].meaning
        else:
            without_digest = {key: value for key, value in own[label].items() if key != "digest"}
            inputs = {
                name: {maker: digests[maker] for maker in makers} for name, makers in without_digest["inputs"].items()
            }
            without_digest["inputs"] = inputs
            meaning = {"digest": task_digest(without_digest), **without_digest}
        task = graph.tasks[label]
        digests[label] = task.attributes["digest"] = meaning["digest"]
        task.task["extra"]["limbeck"] = meaning


def _walk(
    graph: TaskGraph,
    targets: list[str],
    history: History,
    forced: Mapping[str, str],
    use: Mapping[str, NamedTask],
    damages: Mapping[str, str],
) -> tuple[Plan, dict[str, str]]:
    """The plan, and what is wrong with the named tasks that cannot be used, by label."""
    plan, damaged = Plan(), dict[str, str]()
    queue = list(targets)
    while queue:
        label = queue.pop()
        if label in plan.run or label in plan.reused:
            continue
        if label in use:
            if damage := history.damage(use[label].task_id):
                damaged[label] = f"artifacts of {label} ({use[label].task_id}) are damaged: {damage}"
            plan.reused[label] = use[label].task_id
            plan.by_name[label] = []
            continue
        task = graph.tasks[label]
        reasons = [reason for reason in (forced.get(label), damages.get(label)) if reason]
        if label not in forced:
            for task_id in history.finished(task.attributes["digest"]):
                damage = history.damage(task_id)
                if damage is None:
                    plan.reused[label] = task_id
                    break
                reasons.append(f"artifacts of {label} ({task_id}) are damaged: {damage}")
            if label in plan.reused:
                continue
        plan.run[label] = reasons or _reasons(graph, label, history.earlier(label))
        queue.extend(sorted(task.dependencies.values()))
    return plan, damaged


def _reasons(graph: TaskGraph, label: str, earlier: Sequence[Meaning]) -> list[str]:
    task = graph.tasks[label]
    meaning = task.task["extra"]["limbeck"]
    closest = nearest(meaning, earlier)
    if closest is None:
        return [NEVER_RAN]
    return differences(meaning, closest, words_of(graph, label)) or ["what it made is gone"]


def words_of(graph: TaskGraph, label: str) -> Mapping[str, str]:
    """What a person calls the inputs and parameters of a task, where the stage says so."""
    words: Mapping[str, str] = graph.tasks[label].attributes.get("words", {})
    return words


def apply_plan(graph: TaskGraph, plan: Plan) -> TaskGraph:
    """The graph of the tasks to run, keyed by new task ids, with all references to other tasks filled in."""
    needed = plan.run.keys() | plan.reused.keys()
    edges = frozenset(edge for edge in graph.graph.edges if edge[0] in plan.run)
    part = TaskGraph({label: graph.tasks[label] for label in needed}, Graph(frozenset(needed), edges))
    return get_subgraph(part, set(), set(plan.reused), dict(plan.reused), "none")
