"""The plan of a run in words and as JSON."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from taskgraph.taskgraph import TaskGraph

from limbeck_taskgraph.reuse import Plan
from pipeline.common.progress import format_duration
from utils.forecast import FETCH_FACTOR, Estimate, Forecast
from utils.outside import fetched_by
from utils.plan import DOWNLOAD, REUSED, RUN, place_of

_SHOWN_FETCHES = 10
_INDENT = " " * 12


def describe_plan(graph: TaskGraph, plan: Plan, expected: Forecast) -> str:
    """Counts, then what runs and why, a paragraph for each stage and reason; what is reused; what it all takes."""
    counts = count_places(graph, plan)
    lines = [f"{counts[REUSED]} tasks reused, {counts[DOWNLOAD]} to download, {counts[RUN]} to run"]
    for labels, reasons in group_by_reasons(graph, plan.run):
        task = graph.tasks[labels[0]]
        time = _time(expected.estimates.get(task.kind), len(labels))
        lines.append(
            f"  {place_of(graph, plan, labels[0]):<8}  {name_tasks(labels)}  [{task.attributes['worker-type']}]  {time}"
        )
        lines += [f"{_INDENT}{reason}" for reason in reasons]
    if by_digest := plan.reused.keys() - plan.by_name.keys():
        lines.append("  reuse     " + ", ".join(sorted({graph.tasks[label].kind for label in by_digest})))
    for label, given in sorted(plan.by_name.items()):
        lines.append(f"  by name   {label}: {plan.reused[label]}")
        lines += [f"{_INDENT}although {difference}" for difference in given]
    return "\n".join([*lines, *_describe_fetches(expected), *_describe_disk(expected)])


def count_places(graph: TaskGraph, plan: Plan) -> dict[str, int]:
    """How many tasks are reused, download something or run otherwise."""
    counts = Counter(place_of(graph, plan, label) for label in [*plan.reused, *plan.run])
    return {place: counts[place] for place in (REUSED, DOWNLOAD, RUN)}


def group_by_reasons(graph: TaskGraph, reasons: Mapping[str, Sequence[str]]) -> list[tuple[list[str], Sequence[str]]]:
    """Labels and their reasons in an order in which they could run; tasks of a kind with the same reasons together."""
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for label in graph.graph.visit_postorder():
        if label in reasons:
            groups[graph.tasks[label].kind, tuple(reasons[label])].append(label)
    return [(sorted(labels, key=_by_number), given) for (_, given), labels in groups.items()]


def _by_number(label: str) -> list[tuple[int, str]]:
    """Sorts 2/20 before 10/20."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in label.replace("/", "-").split("-")]


def name_tasks(labels: Sequence[str]) -> str:
    """One label, or the first of several and how many more there are."""
    return labels[0] if len(labels) == 1 else f"{labels[0]} and {len(labels) - 1} more"


def _time(estimate: Estimate | None, tasks: int) -> str:
    if estimate is None:
        return "time unknown"
    earlier = f"{estimate.tasks} earlier task{'s' if estimate.tasks > 1 else ''}"
    return f"about {format_duration(estimate.seconds)}{' each' if tasks > 1 else ''}, from {earlier}"


def _describe_fetches(expected: Forecast) -> list[str]:
    if not expected.fetches:
        return []
    known = [found for found in expected.fetches.values() if found is not None]
    unknown = len(expected.fetches) - len(known)
    known_size = f", {format_size(sum(known))}" if known else ""
    unknown_size = f", {unknown} of unknown size" if unknown else ""
    lines = [f"to fetch: {len(expected.fetches)}{known_size}{unknown_size}"]
    shown = list(expected.fetches.items())[:_SHOWN_FETCHES]
    lines += [f"  {'unknown' if found is None else format_size(found):>9}  {name}" for name, found in shown]
    if len(expected.fetches) > len(shown):
        lines.append(f"{_INDENT}and {len(expected.fetches) - len(shown)} more")
    return lines


def _describe_disk(expected: Forecast) -> list[str]:
    if not expected.disk:
        return []
    needed = (
        f"about {format_size(expected.disk)} (what is fetched, {FETCH_FACTOR} times, and what earlier tasks of these "
        "stages took)"
    )
    if expected.fits:
        return [f"disk: {needed}; {format_size(expected.free)} are free"]
    return [f"warning: the disk is too small: this run needs {needed}, and only {format_size(expected.free)} are free"]


def format_size(size: int) -> str:
    """Bytes as a person reads them: `312 B`, `4.0 KB`, `1.2 GB` (powers of 1000)."""
    amount = float(size)
    for unit in ("B", "KB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def plan_json(graph: TaskGraph, plan: Plan, expected: Forecast, group_id: str | None) -> dict[str, Any]:
    """The plan for programs; docs/engine.md explains the keys."""
    tasks = {}
    for label in graph.graph.visit_postorder():
        if label not in plan.run and label not in plan.reused:
            continue
        task = graph.tasks[label]
        tasks[label] = {
            "action": place_of(graph, plan, label),
            "stage": task.kind,
            "worker-type": task.attributes["worker-type"],
            "digest": task.attributes["digest"],
            "reasons": list(plan.run.get(label, [])),
            "task-id": plan.reused.get(label),
            "by-name": label in plan.by_name,
            "although": plan.by_name.get(label, []),
            "external": list(fetched_by(task)),
        }
    return {
        "group": group_id,
        "counts": count_places(graph, plan),
        "tasks": tasks,
        "fetches": expected.fetches,
        "estimates": {
            kind: {"seconds": round(found.seconds, 1), "bytes": found.size, "earlier-tasks": found.tasks}
            for kind, found in expected.estimates.items()
        },
        "disk": {"needed": expected.disk, "free": expected.free},
    }
