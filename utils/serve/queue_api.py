"""The read part of Taskcluster's queue API, for the tasks of the runs folder.

An artifact's address, …/api/queue/v1/task/<taskId>/artifacts/public/build/vocab.en.spm, can so be the source of a
continuation on another machine. What Taskcluster pages, this answers at once.
"""

import contextlib
import mimetypes
import re
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from limbeck_engines.artifacts import is_complete
from limbeck_engines.store import GroupRow, TaskRow
from limbeck_engines.task import CANCELLED, COMPLETED, FAILED, PENDING, REUSED, RUNNING, SKIPPED
from pipeline.common.errors import UserError
from utils.serve.pages import RECORDS, File
from utils.serve.records import Session
from utils.serve.security import API, ARTIFACT_POLICY

PREFIX = f"{API}queue/v1"
_SCHEDULER = "limbeck"
_DAY = 24 * 3600
_TASK_STATES = {
    PENDING: "pending",
    RUNNING: "running",
    COMPLETED: "completed",
    REUSED: "completed",
    FAILED: "failed",
    SKIPPED: "unscheduled",  # as where a task waits for one that failed
    CANCELLED: "exception",
}
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": _DAY, "week": 7 * _DAY, "month": 30 * _DAY}
_SECONDS |= {f"{unit}s": seconds for unit, seconds in _SECONDS.items()} | {"year": 365 * _DAY, "years": 365 * _DAY}
_SOURCE = re.compile(r"^(https?://|ssh://|git@)")
_TEXT = (".log", ".jsonl", ".yml", ".yaml", ".md", ".txt", ".tsv")

routes = web.RouteTableDef()


@routes.get(f"{PREFIX}/ping")
async def ping(_: web.Request) -> web.StreamResponse:
    return web.json_response({"alive": True, "uptime": time.monotonic()})


@routes.get(f"{PREFIX}/task/{{taskId}}")
async def task(request: web.Request) -> web.StreamResponse:
    def read(session: Session) -> dict[str, Any]:
        row = session.store.task(request.match_info["taskId"])
        return definition(row, session.store.group(row.group_id), _page_of(request, row))

    return web.json_response(await request.app[RECORDS].ask(read))


@routes.get(f"{PREFIX}/task/{{taskId}}/status")
async def status(request: web.Request) -> web.StreamResponse:
    def read(session: Session) -> dict[str, Any]:
        row = session.store.task(request.match_info["taskId"])
        return {"status": task_status(session, _seen(session, row), session.store.group(row.group_id))}

    return web.json_response(await request.app[RECORDS].ask(read))


@routes.get(f"{PREFIX}/task-group/{{groupId}}/list")
async def task_group(request: web.Request) -> web.StreamResponse:
    def read(session: Session) -> dict[str, Any]:
        found = session.status(request.match_info["groupId"])
        group = session.store.group(found.group.group_id)
        return {
            "taskGroupId": group.group_id,
            "schedulerId": _SCHEDULER,
            "expires": _date(group.created + 365 * _DAY),
            "tasks": [
                {
                    "status": task_status(session, row, group),
                    "task": definition(row, group, _page_of(request, row)),
                }
                for row in found.tasks
            ],
        }

    return web.json_response(await request.app[RECORDS].ask_slowly(read))


@routes.get(f"{PREFIX}/task/{{taskId}}/artifacts")
@routes.get(f"{PREFIX}/task/{{taskId}}/runs/{{runId}}/artifacts")
async def artifacts(request: web.Request) -> web.StreamResponse:
    run = _run(request)

    def read(session: Session) -> dict[str, Any]:
        row = session.store.task(request.match_info["taskId"])
        group = session.store.group(row.group_id)
        expires = definition(row, group, "")["expires"]
        return {
            "artifacts": [
                _described(name, place, expires) for name, place in sorted(_places(session, row, run).items())
            ]
        }

    return web.json_response(await request.app[RECORDS].ask_slowly(read))


@routes.get(f"{PREFIX}/task/{{taskId}}/artifacts/{{name:.+}}")
@routes.get(f"{PREFIX}/task/{{taskId}}/runs/{{runId}}/artifacts/{{name:.+}}")
async def artifact(request: web.Request) -> web.StreamResponse:
    """The artifact itself, also in parts (Range); one that is elsewhere is redirected to."""
    run, name = _run(request), request.match_info["name"]

    def read(session: Session) -> Path | str:
        row = session.store.task(request.match_info["taskId"])
        found = _places(session, row, run)
        if name not in found:
            raise UserError(f"{row.label} ({row.task_id}) has no artifact {name}")
        return found[name]

    place = await request.app[RECORDS].ask_slowly(read)
    if isinstance(place, str):
        raise web.HTTPSeeOther(place)
    headers = {"Content-Type": content_type(name), "Content-Security-Policy": ARTIFACT_POLICY}
    return File(place, headers=headers)


def content_type(name: str) -> str:
    """The type of an artifact. What is compressed is its own type: it is not to be unpacked on the way."""
    if name.endswith(".zst"):
        return "application/zstd"
    if name.endswith(".gz"):
        return "application/gzip"
    if name.endswith(_TEXT):
        return "text/plain; charset=utf-8"
    found = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return f"{found}; charset=utf-8" if found.startswith("text/") else found


def definition(row: TaskRow, group: GroupRow, page: str) -> dict[str, Any]:
    """A task's definition with all that the queue adds to one. `page` is an address that shows the task."""
    given = row.definition
    metadata = given.get("metadata", {})
    source = str(metadata.get("source", ""))
    provisioner, worker = str(given.get("provisionerId", "limbeck")), str(given.get("workerType", "local"))
    dates = {
        key: _date(_moment(given.get(key), group.created, otherwise))
        for key, otherwise in (("created", 0), ("deadline", 30 * _DAY), ("expires", 365 * _DAY))
    }
    return {
        "provisionerId": provisioner,
        "workerType": worker,
        "taskQueueId": f"{provisioner}/{worker}",
        "schedulerId": _SCHEDULER,
        "projectId": "none",
        "taskGroupId": group.group_id,
        "dependencies": row.dependencies,
        "requires": given.get("requires", "all-completed"),
        "routes": given.get("routes", []),
        "priority": given.get("priority", "lowest"),
        "retries": given.get("retries", 5),
        **dates,
        "scopes": given.get("scopes", []),
        "payload": given.get("payload", {}),
        "metadata": {
            "name": str(metadata.get("name", row.label))[:255],
            "description": str(metadata.get("description", "")),
            "owner": str(metadata.get("owner", ""))[:255],
            # The queue knows no sources in files.
            "source": source if _SOURCE.match(source) else page,
        },
        "tags": given.get("tags", {}),
        "extra": given.get("extra", {}),
    }


def task_status(session: Session, row: TaskRow, group: GroupRow) -> dict[str, Any]:
    """A task's status as the queue tells it, with the runs that are known."""
    described = definition(row, group, "")
    shared = ("provisionerId", "workerType", "taskQueueId", "schedulerId", "projectId", "taskGroupId", "priority")
    return {
        "taskId": row.task_id,
        **{key: described[key] for key in shared},
        "deadline": described["deadline"],
        "expires": described["expires"],
        "retriesLeft": max(0, 5 - (row.run or 0)),
        "state": _TASK_STATES[row.state],
        "runs": _runs(session, row, group),
    }


def _runs(session: Session, row: TaskRow, group: GroupRow) -> list[dict[str, Any]]:
    """All runs of a task: of earlier ones only that they failed is known."""
    scheduled = _date(row.started or group.created)
    if row.state == REUSED and row.run is None:
        done = _date(row.finished or group.created)
        run = {"runId": 0, "state": "completed", "reasonCreated": "scheduled", "reasonResolved": "completed"}
        return [{**run, "scheduled": scheduled, "started": scheduled, "resolved": done}]
    if row.state == PENDING and row.run is None:
        return [{"runId": 0, "state": "pending", "reasonCreated": "scheduled", "scheduled": _date(group.created)}]
    found: list[dict[str, Any]] = []
    for number in range((row.run or 0) + 1 if row.run is not None else 0):
        run = {"runId": number, "reasonCreated": "retry" if number else "scheduled", "scheduled": scheduled}
        if number < (row.run or 0):
            run |= {"state": "exception", "reasonResolved": "intermittent-task", "resolved": scheduled}
        else:
            run |= _newest_run(row, scheduled)
        found.append(run)
    return found


def _newest_run(row: TaskRow, started: str) -> dict[str, Any]:
    ended = {"started": started, "resolved": _date(row.finished or row.started or 0.0)}
    if row.state in (COMPLETED, REUSED):
        return {"state": "completed", "reasonResolved": "completed", **ended}
    if row.state == FAILED:
        return {"state": "failed", "reasonResolved": "failed", **ended}
    if row.state == RUNNING:
        return {"state": "running", "started": started}
    if row.state == PENDING:
        return {"state": "pending"}
    return {"state": "exception", "reasonResolved": "canceled", **ended}


def _places(session: Session, row: TaskRow, run: int | None) -> Mapping[str, Path | str]:
    """A finished task's artifacts by name. Raises UserError when it is not finished, or has no such run."""
    if run is None or not session.has_files(row):
        return session.engine_of(row).artifacts(row.task_id)
    folder = session.layout.run(row.task_id, run)
    if not is_complete(folder):
        raise UserError(f"run {run} of {row.label} ({row.task_id}) has no artifacts")
    root = folder / "artifacts"
    return {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}


def _described(name: str, place: Path | str, expires: str) -> dict[str, Any]:
    known = {"name": name, "contentType": content_type(name), "expires": expires}
    if isinstance(place, str):
        return {"storageType": "reference", **known}
    return {"storageType": "s3", **known, "contentLength": place.stat().st_size}


def _seen(session: Session, row: TaskRow) -> TaskRow:
    """The task as its engine sees it now."""
    return next(seen for seen in session.status(row.group_id).tasks if seen.task_id == row.task_id)


def _page_of(request: web.Request, row: TaskRow) -> str:
    return f"{request.scheme}://{request.host}/task/{row.task_id}"


def _run(request: web.Request) -> int | None:
    given = request.match_info.get("runId")
    if given is None:
        return None
    if not given.isdecimal():
        raise web.HTTPBadRequest(text=f"{given} is no number of a run")
    return int(given)


def _moment(value: Any, created: float, otherwise: float) -> float:
    """Seconds since the epoch of a date of a definition, which may be told from its creation."""
    if isinstance(value, dict) and "relative-datestamp" in value:
        count, _, unit = str(value["relative-datestamp"]).partition(" ")
        if count.isdecimal() and unit in _SECONDS:
            return created + int(count) * _SECONDS[unit]
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(value).timestamp()
    return created + otherwise


def _date(seconds: float) -> str:
    """As the queue writes dates: 2026-03-01T12:00:00.000Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"
