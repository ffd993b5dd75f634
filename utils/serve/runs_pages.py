"""The list of runs, and the page of one: what failed, what runs, and the graph with the states of its tasks."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from limbeck_engines.base import GroupStatus
from limbeck_engines.logs import last_line
from limbeck_engines.store import GroupRow, TaskRow
from limbeck_engines.task import DONE, PENDING, REUSED, RUNNING
from utils.serve.pages import RECORDS, page, render
from utils.serve.records import Frame, Session, counts_of, duration, failures, shown_state
from utils.trigger_log import read_triggers

_SHOWN_RUNNING = 12
_SHOWN_FAILED = 20
_LISTED = 200  # runs on the first page
LARGE_BOX = 8  # more tasks than these are drawn as small squares

routes = web.RouteTableDef()


@dataclass(frozen=True)
class RunLine:
    """A run in the list."""

    group: GroupRow
    counts: Mapping[str, int]
    total: int
    done: int
    seconds: float | None
    failed: list[TaskRow]


@dataclass(frozen=True)
class RunningTask:
    """A task that runs now, with the last that its log says."""

    row: TaskRow
    seconds: float | None
    line: str


@routes.get("/")
async def index(request: web.Request) -> web.StreamResponse:
    lines, total = await request.app[RECORDS].ask(_lines)
    return page(request, "runs.html", runs=lines, total=total, folder=request.app[RECORDS].runs.resolve())


@routes.get("/live")
async def index_live(request: web.Request) -> web.StreamResponse:
    """The list's rows as they stand now."""
    lines, _ = await request.app[RECORDS].ask(_lines)
    return live(request, {"html": {"runs": render(request, "runs_rows.html", runs=lines)}})


@routes.get("/run/{group}")
async def run_page(request: web.Request) -> web.StreamResponse:
    group_id = request.match_info["group"]

    def read(session: Session) -> tuple[Frame, GroupStatus, dict[str, Any], bool]:
        status = session.status(group_id)
        frame = session.frame(group_id)
        has_report = any(node.kind == "report" for node in frame.nodes.values())
        return frame, status, read_triggers(session.store).get(group_id, {}), has_report

    frame, status, trigger, has_report = await request.app[RECORDS].ask(read)
    running = await _running(request, group_id)
    return page(
        request,
        "run.html",
        frame=frame,
        group=status.group,
        trigger=trigger,
        has_report=has_report,
        nodes=frame.nodes,
        task_states=_task_states(frame, status),
        large=LARGE_BOX,
        **_panels(status, frame, running),
    )


@routes.get("/run/{group}/live")
async def run_live(request: web.Request) -> web.StreamResponse:
    """The states of a run's tasks, and the panels above its graph."""
    group_id = request.match_info["group"]

    def read(session: Session) -> tuple[Frame, GroupStatus]:
        return session.frame(group_id), session.status(group_id)

    frame, status = await request.app[RECORDS].ask(read)
    panels = _panels(status, frame, await _running(request, group_id))
    html = {name: render(request, f"run_{name}.html", group=status.group, **panels) for name in PANELS}
    return live(request, {"tasks": _task_states(frame, status), "html": html})


PANELS = ("summary", "failed", "running")


def live(request: web.Request, state: dict[str, Any]) -> web.Response:
    """What a page asks for every second; 304 when nothing has changed since it asked."""
    answer = web.json_response(state)
    assert isinstance(answer.body, bytes)
    tag = hashlib.sha256(answer.body).hexdigest()[:32]
    if any(known.value == tag for known in request.if_none_match or ()):
        answer = web.Response(status=304)
    else:
        answer.enable_compression()
    answer.etag = tag
    return answer


def _lines(session: Session) -> tuple[list[RunLine], int]:
    if session.is_empty:
        return [], 0
    groups = session.store.groups()
    return [session.of_group(group, _line) for group in groups[:_LISTED]], len(groups)


def _line(status: GroupStatus) -> RunLine:
    counts = counts_of(status)
    done = sum(counts[state] for state in DONE)
    failed = [row for row, _ in failures(status)]
    return RunLine(status.group, counts, len(status.tasks), done, duration(status), failed)


def _panels(status: GroupStatus, frame: Frame, running: list[RunningTask]) -> dict[str, Any]:
    counts = counts_of(status)
    failed = failures(status)
    return {
        "counts": counts,
        "total": len(status.tasks),
        "done": sum(counts[state] for state in DONE),
        "earlier": sum(node.earlier for node in frame.nodes.values()),
        "seconds": duration(status),
        "failed": failed[:_SHOWN_FAILED],
        "more_failed": max(0, len(failed) - _SHOWN_FAILED),
        "running": running,
        "more_running": max(0, counts[RUNNING] - len(running)),
    }


def _task_states(frame: Frame, status: GroupStatus) -> dict[str, str]:
    """The state of every task of the drawing, by id; what an earlier run made counts as reused."""
    own = {row.task_id: shown_state(row) for row in status.tasks}
    return {task_id: own.get(task_id) or _earlier(node.state) for task_id, node in frame.nodes.items()}


def _earlier(state: str) -> str:
    return REUSED if state in DONE else state if state != RUNNING else PENDING


async def _running(request: web.Request, group_id: str) -> list[RunningTask]:
    def read(session: Session) -> list[RunningTask]:
        rows = [row for row in session.status(group_id).tasks if row.state == RUNNING]
        now = time.time()
        found = []
        for row in rows[:_SHOWN_RUNNING]:
            log = session.layout.run(row.task_id, row.run or 0) / "live.log"
            found.append(RunningTask(row, now - row.started if row.started else None, last_line(log)))
        return found

    return await request.app[RECORDS].ask(read)
