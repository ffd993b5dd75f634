"""A drawing of the task graph: one page, one SVG, no script and nothing to download."""

import html
from collections import Counter, defaultdict

from taskgraph.taskgraph import TaskGraph

BOX_WIDTH, BOX_HEIGHT, COLUMN_GAP, ROW_GAP, MARGIN = 300, 44, 70, 18, 24

# Of a task's place in a plan (utils/plan.py).
COLOURS = {"reused": "#2f6f4f", "download": "#b7791f", "run": "#2b6cb0", "not needed": "#9aa5b1"}

STYLE = """
:root { --ink: #1f2933; --paper: #fbfbf9; --box: #fff; --line: #9aa5b1; --accent: #2f6f4f; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --paper: #16191d; --box: #22272e; --line: #616e7c; --accent: #7fc8a0; } }
body { margin: 0; padding: 24px; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 20px; margin: 0 0 4px; } p { margin: 0 0 16px; }
.drawing { overflow-x: auto; }
rect { fill: var(--box); stroke: var(--accent); rx: 6; } text { fill: var(--ink); font: 12px system-ui, sans-serif; }
rect.mixed { stroke-dasharray: 2; }
.count { fill: var(--accent); } path { fill: none; stroke: var(--line); }
details { margin: 4px 0; } summary { cursor: pointer; }
"""


def graph_page(graph: TaskGraph) -> str:
    """The graph as an HTML page: a box for each kind, from left to right, and the tasks of each kind below."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for label in sorted(graph.tasks):
        kinds[graph.tasks[label].kind].append(label)
    reads: dict[str, set[str]] = {kind: set() for kind in kinds}
    for label, dep, _ in graph.graph.edges:
        reads[graph.tasks[label].kind].add(graph.tasks[dep].kind)
    lists = "\n".join(
        f"<details><summary>{html.escape(kind)} ({len(labels)})</summary><ul>"
        + "".join(_item(graph, label) for label in labels)
        + "</ul></details>"
        for kind, labels in kinds.items()
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Task graph</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<h1>Task graph</h1><p>{len(graph.tasks)} tasks of {len(kinds)} kinds; what is read stands to the left.</p>"
        f'<div class="drawing">{_drawing(graph, kinds, reads)}</div>{lists}</body></html>\n'
    )


def _item(graph: TaskGraph, label: str) -> str:
    task = graph.tasks[label]
    place = f" ({task.attributes['plan']})" if "plan" in task.attributes else ""
    return f"<li>{html.escape(label)}{place}: {html.escape(task.description)}</li>"


def _drawing(graph: TaskGraph, kinds: dict[str, list[str]], reads: dict[str, set[str]]) -> str:
    columns = _columns(reads)
    rows: dict[int, list[str]] = defaultdict(list)
    for kind in sorted(columns, key=lambda kind: (columns[kind], kind)):
        rows[columns[kind]].append(kind)
    place = {}
    for column, members in rows.items():
        for row, kind in enumerate(members):
            place[kind] = (MARGIN + column * (BOX_WIDTH + COLUMN_GAP), MARGIN + row * (BOX_HEIGHT + ROW_GAP))
    width = max(x for x, _ in place.values()) + BOX_WIDTH + MARGIN
    height = max(y for _, y in place.values()) + BOX_HEIGHT + MARGIN
    parts = [f'<svg width="{width}" height="{height}" role="img" aria-label="Kinds of tasks and what they read">']
    for kind, sources in reads.items():
        x, y = place[kind][0], place[kind][1] + BOX_HEIGHT / 2
        for source in sorted(sources):
            from_x, from_y = place[source][0] + BOX_WIDTH, place[source][1] + BOX_HEIGHT / 2
            bend = (from_x + x) / 2
            parts.append(f'<path d="M{from_x} {from_y} C{bend} {from_y} {bend} {y} {x} {y}"/>')
    for kind, (x, y) in place.items():
        places = Counter(graph.tasks[label].attributes.get("plan") for label in kinds[kind])
        parts.append(
            f'<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}"{_look(places)}/>'
            f'<text x="{x + 10}" y="{y + 18}">{html.escape(kind)}</text>'
            f'<text class="count" x="{x + 10}" y="{y + 35}">{_tasks(places)}</text>'
        )
    return "".join([*parts, "</svg>"])


def _look(places: Counter[str | None]) -> str:
    """The frame of a kind's box: the colour of its tasks' place in the plan, dotted when they have several."""
    known = [place for place in COLOURS if places[place]]
    if not known:
        return ""
    most = max(known, key=lambda place: places[place])
    return f' style="stroke: {COLOURS[most]}"' + (' class="mixed"' if len(known) > 1 else "")


def _tasks(places: Counter[str | None]) -> str:
    total = places.total()
    count = "1 task" if total == 1 else f"{total} tasks"
    known = [f"{places[place]} {place}" for place in COLOURS if places[place]]
    if len(known) == 1:
        return f"{count}, {known[0].split(' ', 1)[1]}"
    return f"{count}: {', '.join(known)}" if known else count


def _columns(reads: dict[str, set[str]]) -> dict[str, int]:
    columns: dict[str, int] = {}

    def column(kind: str) -> int:
        if kind not in columns:
            columns[kind] = 1 + max((column(source) for source in reads[kind]), default=-1)
        return columns[kind]

    for kind in reads:
        column(kind)
    return columns
