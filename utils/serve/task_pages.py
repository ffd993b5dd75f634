"""The page of a task: what it is and reads, what it made, its log as it is written, and its use of the machine."""

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiohttp import web

from limbeck_engines.store import GroupRow, TaskRow
from limbeck_engines.task import DONE, PENDING, RUNNING
from limbeck_taskgraph.differences import NEVER_RAN, differences, nearest
from pipeline.common.errors import TransientError, UserError
from utils.artifacts import Artifact, artifacts_of
from utils.serve.curves import find_curve, plotly_style_ids, resource_figures
from utils.serve.pages import RECORDS, REMOTE_LOGS, SAMPLER, File, page, render
from utils.serve.previews import Preview, previews
from utils.serve.queue_api import PREFIX
from utils.serve.records import Session, shown_state
from utils.serve.runs_pages import live
from utils.serve.security import ARTIFACT_POLICY
from utils.serve.task_logs import from_lines, read_piece

_COMPARED = 20  # earlier tasks of a label that one is compared with
_PREVIEWED = 12  # artifacts

routes = web.RouteTableDef()


@dataclass(frozen=True)
class Input:
    """What a task reads of another: its artifacts by name, none of them where it only waits for it."""

    task_id: str
    label: str
    state: str
    artifacts: Sequence[str]


@dataclass(frozen=True)
class Made:
    """What a task made: its files, each with the address that it is had from, and the first lines of what is text.
    `problem`: why that is not known.
    """

    files: Sequence[tuple[Artifact, str]] = ()
    previews: Sequence[Preview] = ()
    problem: str = ""


@dataclass(frozen=True)
class TaskView:
    """A task as its page shows it."""

    row: TaskRow
    group: GroupRow
    source: TaskRow  # whose artifacts and log stand for its own; mostly itself
    state: str
    definition: Mapping[str, Any]
    runs: Sequence[int]
    seconds: float | None

    @property
    def languages(self) -> list[str]:
        return list(self.definition.get("extra", {}).get("limbeck", {}).get("languages", []))


@routes.get("/task/{task}")
async def task_page(request: web.Request) -> web.StreamResponse:
    task_id = request.match_info["task"]

    def read(session: Session) -> tuple[TaskView, list[Input], list[Input], list[str], bool]:
        view = read_task(session, task_id)
        has_curve = find_curve(session, view.row) is not None
        return view, _inputs(session, view.row), _readers(session, view.row), _reasons(session, view), has_curve

    view, inputs, readers, reasons, has_curve = await request.app[RECORDS].ask(read)
    made = await _made(request, view)
    definition = json.dumps(view.definition, indent=2, ensure_ascii=False)
    return page(
        request,
        "task.html",
        view=view,
        inputs=inputs,
        readers=readers,
        reasons=reasons,
        made=made,
        has_curve=has_curve,
        style_ids=plotly_style_ids(),
        definition=definition,
        commands=view.row.task().commands,
    )


@routes.get("/task/{task}/live")
async def task_live(request: web.Request) -> web.StreamResponse:
    """The parts of a task's page that change."""
    view = await request.app[RECORDS].ask(lambda session: read_task(session, request.match_info["task"]))
    html = {"head": render(request, "task_head.html", view=view)}
    # Artifacts appear when a task ends; until then there is nothing to ask for.
    if view.state in DONE:
        html["artifacts"] = render(request, "task_artifacts.html", view=view, made=await _made(request, view))
    return live(request, {"html": html, "state": view.state})


@routes.get("/task/{task}/log")
async def task_log(request: web.Request) -> web.StreamResponse:
    """What the log says from `offset` on, or its end."""
    task_id = request.match_info["task"]
    offset, run = _number(request, "offset"), _number(request, "run")

    def read(session: Session) -> tuple[TaskView, Path | None]:
        view = read_task(session, task_id)
        return view, _log_path(session, view, run)

    view, path = await request.app[RECORDS].ask(read)
    if path is not None:
        piece = read_piece(path, offset)
    else:
        piece = await request.app[RECORDS].ask_slowly(
            lambda session: from_lines(
                request.app[REMOTE_LOGS].lines(
                    # What it says last is fetched when it has ended.
                    f"{view.source.task_id} {view.state}",
                    lambda: session.engine_of(view.source).log_lines(view.source.task_id),
                ),
                offset,
            )
        )
    ended = piece.at_end and view.state not in (PENDING, RUNNING)
    return web.json_response({**dataclasses.asdict(piece), "ended": ended})


@routes.get("/task/{task}/log.txt")
async def task_log_text(request: web.Request) -> web.StreamResponse:
    """The whole log as it was written."""
    run = _number(request, "run")

    def read(session: Session) -> tuple[TaskView, Path | None]:
        view = read_task(session, request.match_info["task"])
        return view, _log_path(session, view, run)

    view, path = await request.app[RECORDS].ask(read)
    headers = {"Content-Type": "text/plain; charset=utf-8", "Content-Security-Policy": ARTIFACT_POLICY}
    if path is None:
        text = await request.app[RECORDS].ask_slowly(
            lambda session: "".join(session.engine_of(view.source).log_lines(view.source.task_id))
        )
        return web.Response(text=text, headers=headers)
    if not path.is_file():
        raise UserError(f"{view.row.label} has no log of run {run}")
    return File(path, headers=headers)


@routes.get("/task/{task}/resources")
async def task_resources(request: web.Request) -> web.StreamResponse:
    """Charts of what the task has taken while the server looked."""
    view = await request.app[RECORDS].ask(lambda session: read_task(session, request.match_info["task"]))
    samples = request.app[SAMPLER].samples(view.source.task_id)
    return live(request, {"figures": resource_figures(samples), "ended": view.state not in (PENDING, RUNNING)})


def read_task(session: Session, task_id: str) -> TaskView:
    """Raises UserError when there is no such task."""
    recorded = session.store.task(task_id)
    status = session.status(recorded.group_id)
    # As its engine sees it: what died since does not run any more.
    row = next(row for row in status.tasks if row.task_id == task_id)
    source = session.store.resolve(task_id) or row
    source = row if source.task_id == task_id else source
    started, ended = source.started, source.finished
    if row.state == RUNNING:
        ended = time.time()
    seconds = ended - started if started and ended and row.state != PENDING else None
    return TaskView(
        row, status.group, source, shown_state(row), row.definition, _runs(session, source.task_id), seconds
    )


def _runs(session: Session, task_id: str) -> list[int]:
    """The numbers of a task's runs that left something on disk."""
    folder = session.layout.runs(task_id)
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()) if folder.is_dir() else []


def _inputs(session: Session, row: TaskRow) -> list[Input]:
    fetches: dict[str, list[str]] = {}
    for fetch in json.loads(row.task().payload.get("env", {}).get("MOZ_FETCHES") or "[]"):
        fetches.setdefault(str(fetch["task"]), []).append(str(fetch["artifact"]))
    found = []
    for task_id in dict.fromkeys([*fetches, *row.dependencies]):
        maker = session.store.find_task(task_id)
        label, state = (maker.label, shown_state(maker)) if maker else (task_id, "")
        found.append(Input(task_id, label, state, fetches.get(task_id, [])))
    return found


def _readers(session: Session, row: TaskRow) -> list[Input]:
    return [
        Input(other.task_id, other.label, shown_state(other), ())
        for other in session.status(row.group_id).tasks
        if row.task_id in other.dependencies_json and row.task_id in other.dependencies
    ]


def _reasons(session: Session, view: TaskView) -> list[str]:
    """Why it was not reused: what differs from the nearest of the tasks of its label that were done before."""
    meaning = view.definition.get("extra", {}).get("limbeck")
    if not meaning or "inputs" not in meaning:
        return []
    earlier = [
        other.definition["extra"]["limbeck"]
        for other in session.store.done_by_label(view.row.label, _COMPARED)
        if other.task_id != view.row.task_id and (other.finished or 0) < view.group.created
    ]
    found = nearest(meaning, earlier)
    if found is None:
        return [f"it {NEVER_RAN} before"]
    return differences(meaning, found) or ["it was to run anew, though an earlier task means the same"]


def _log_path(session: Session, view: TaskView, run: int | None) -> Path | None:
    """Where the log lies; None when its engine must be asked for it."""
    if not session.has_files(view.source):
        return None
    number = view.source.run if run is None else run
    if number is None:
        return session.layout.runs(view.source.task_id) / "none"
    return session.layout.run(view.source.task_id, number) / "live.log"


async def _made(request: web.Request, view: TaskView) -> Made:
    if view.state not in DONE:
        return Made()

    def read(session: Session) -> Made:
        found = list(artifacts_of(session.store, view.source))
        local = {artifact.name: artifact.place for artifact in found if isinstance(artifact.place, Path)}
        files = [(artifact, _address(view.source, artifact)) for artifact in found]
        return Made(files, previews(dict(list(local.items())[:_PREVIEWED]), view.languages))

    try:
        # What a run has made stays as it is; only the page asks for it every second.
        return await request.app[RECORDS].ask_once((view.source.task_id, view.source.run), read)
    except (UserError, TransientError) as error:
        return Made(problem=str(error))


def _address(row: TaskRow, artifact: Artifact) -> str:
    if not isinstance(artifact.place, Path):
        return artifact.place
    above = artifact.place.parents[len(Path(artifact.name).parts) - 1]
    folder = "public/build/" if above.parts[-2:] == ("public", "build") else ""
    return f"{PREFIX}/task/{row.task_id}/artifacts/{quote(folder + artifact.name)}"


def _number(request: web.Request, name: str) -> int | None:
    """A number of the query that is not negative. Raises HTTPBadRequest for anything else."""
    given = request.query.get(name)
    if given is None:
        return None
    if not given.isdecimal():
        raise web.HTTPBadRequest(text=f"{name} must be a number, not {given!r}")
    return int(given)
