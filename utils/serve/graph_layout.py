"""Where the boxes of a run's graph stand: tasks of a kind in one box, boxes in rows, what is read above what reads it.

The rows are those of a layered drawing (Sugiyama): a line that crosses a row has a place of its own in it, and boxes
are ordered so that few lines cross. The browser gives boxes their sizes and draws the lines (static/graph.js).
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_SWEEPS = 8


@dataclass(frozen=True)
class Box:
    """Tasks of one kind, by id. `key` names it in the drawing."""

    key: str
    kind: str
    task_ids: tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """From a box to one that reads it. `path` holds the keys of both and, between them, of the places in the rows that
    it crosses. `implied`: other lines lead the same way, so it is drawn only when one of its boxes is looked at.
    """

    path: tuple[str, ...]
    implied: bool


@dataclass(frozen=True)
class Drawing:
    """Rows of keys, of boxes and of places that lines pass through, from top to bottom."""

    rows: tuple[tuple[str, ...], ...]
    boxes: Mapping[str, Box]
    lines: tuple[Line, ...]


def draw(kinds: Mapping[str, str], reads: Mapping[str, Iterable[str]]) -> Drawing:
    """Lay out tasks, given their kinds and what they read, by task id. What is read and not among them is left out.

    Raises ValueError when tasks depend on each other in a circle.
    """
    known = {task: [source for source in reads.get(task, ()) if source in kinds] for task in kinds}
    group_of = _groups(kinds, known)
    members: dict[str, list[str]] = defaultdict(list)
    sources: dict[str, set[str]] = {key: set() for key in group_of.values()}
    for task, key in group_of.items():
        members[key].append(task)
        sources[key] |= {group_of[source] for source in known[task]}
    boxes = {key: Box(key, kinds[tasks[0]], tuple(tasks)) for key, tasks in members.items()}
    rows = _rows(sources)
    implied = _implied(sources)
    lines = []
    places: dict[int, list[str]] = defaultdict(list)
    for key in boxes:
        places[rows[key]].append(key)
    for target, found in sources.items():
        for source in sorted(found):
            if (source, target) in implied:
                lines.append(Line((source, target), True))
                continue
            through = [f"via-{len(lines)}-{row}" for row in range(rows[source] + 1, rows[target])]
            for row, place in enumerate(through, start=rows[source] + 1):
                places[row].append(place)
            lines.append(Line((source, *through, target), False))
    return Drawing(_ordered([places[row] for row in sorted(places)], lines), boxes, tuple(lines))


def _groups(kinds: Mapping[str, str], reads: Mapping[str, list[str]]) -> dict[str, str]:
    """The box of each task: its kind, or where tasks of a kind read each other, also by way of other kinds, its kind
    and how many tasks have to come before it.
    """
    by_kind: dict[str, set[str]] = {kind: set() for kind in kinds.values()}
    for task, sources in reads.items():
        by_kind[kinds[task]] |= {kinds[source] for source in sources}
    circular = _on_circles(by_kind)
    depths = _longest_paths(reads)
    return {task: f"{kind}@{depths[task]}" if kind in circular else kind for task, kind in kinds.items()}


def _on_circles(reads: Mapping[str, set[str]]) -> set[str]:
    """The nodes from which their own edges lead back to them."""
    reachable: dict[str, set[str]] = {}
    for node in reads:
        found: set[str] = set()
        level = [node]
        while level:
            level = [source for other in level for source in reads[other] if source not in found]
            found.update(level)
        reachable[node] = found
    return {node for node, found in reachable.items() if node in found}


def _longest_paths(reads: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """How many steps lead to each node at most. Graphs may be deeper than Python's stack."""
    lengths: dict[str, int] = {}
    for node in topological(reads):
        lengths[node] = 1 + max((lengths[source] for source in reads[node]), default=-1)
    return lengths


def topological(reads: Mapping[str, Iterable[str]]) -> list[str]:
    """The nodes, each after all that it reads. Raises ValueError when there is a circle."""
    waiting = {node: len(set(sources)) for node, sources in reads.items()}
    readers: dict[str, list[str]] = defaultdict(list)
    for node, sources in reads.items():
        for source in set(sources):
            readers[source].append(node)
    order = [node for node, count in waiting.items() if count == 0]
    for node in order:  # grows while it is read
        for reader in readers[node]:
            waiting[reader] -= 1
            if waiting[reader] == 0:
                order.append(reader)
    if len(order) < len(waiting):
        raise ValueError("tasks depend on each other in a circle")
    return order


def _rows(sources: Mapping[str, set[str]]) -> dict[str, int]:
    """The row of each box: below all it reads, and, of what reads little and is read by much, no higher than needed."""
    rows = _longest_paths(sources)
    readers: dict[str, list[str]] = defaultdict(list)
    for target, found in sources.items():
        for source in found:
            readers[source].append(target)
    for key in reversed(topological(sources)):
        if readers[key] and len(sources[key]) < len(readers[key]) + (not sources[key]):
            rows[key] = min(rows[reader] for reader in readers[key]) - 1
    used = {row: number for number, row in enumerate(sorted(set(rows.values())))}
    return {key: used[row] for key, row in rows.items()}


def _implied(sources: Mapping[str, set[str]]) -> set[tuple[str, str]]:
    """The edges (source, target) beside which a longer way leads from the source to the target."""
    above: dict[str, set[str]] = {}
    implied = set()
    for target in topological(sources):
        behind = set[str]().union(*(above[source] for source in sources[target]))
        implied |= {(source, target) for source in sources[target] if source in behind}
        above[target] = behind | sources[target]
    return implied


def _ordered(rows: list[list[str]], lines: list[Line]) -> tuple[tuple[str, ...], ...]:
    """The rows, reordered so that what is connected stands close: each goes to the mean place of its neighbours."""
    upper: dict[str, list[str]] = defaultdict(list)
    lower: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        if not line.implied:
            for above, below in itertools.pairwise(line.path):
                lower[above].append(below)
                upper[below].append(above)

    def sort(row: list[str], neighbours: Mapping[str, list[str]], neighbour_row: list[str]) -> None:
        # In parts of one, since rows differ in length.
        share = {key: (place + 0.5) / len(neighbour_row) for place, key in enumerate(neighbour_row)}
        own = {key: (place + 0.5) / len(row) for place, key in enumerate(row)}
        means = {
            key: sum(share[other] for other in neighbours[key]) / len(neighbours[key]) if neighbours[key] else own[key]
            for key in row
        }
        row.sort(key=lambda key: means[key])

    for _ in range(_SWEEPS):
        for above_row, row in itertools.pairwise(rows):
            sort(row, upper, above_row)
        for below_row, row in itertools.pairwise(reversed(rows)):
            sort(row, lower, below_row)
    return tuple(map(tuple, rows))
