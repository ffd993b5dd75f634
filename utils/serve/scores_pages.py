"""Scores of a run's models, those of several runs side by side, and the report that a run ends with."""

from collections.abc import Sequence
from urllib.parse import quote

from aiohttp import web
from markupsafe import Markup

from limbeck_engines.store import GroupRow
from limbeck_engines.task import DONE
from pipeline.common.errors import UserError
from pipeline.evaluate.page_table import cell, name_cell, sortable_table
from utils.compare import Row, Run, compare_runs, differing_conditions, read_run
from utils.serve.pages import RECORDS, page
from utils.serve.records import Session

_MOST = 6  # runs side by side
_OFFERED = 60  # runs to choose from

routes = web.RouteTableDef()


@routes.get("/run/{group}/scores")
async def scores(request: web.Request) -> web.StreamResponse:
    def read(session: Session) -> tuple[GroupRow, Run]:
        group = session.store.group(request.match_info["group"])
        return group, read_run(group.group_id, session.store, session.runs)

    group, run = await request.app[RECORDS].ask_slowly(read)
    return page(request, "scores.html", group=group, tables=tables([run]))


@routes.get("/compare")
async def compare(request: web.Request) -> web.StreamResponse:
    wanted = list(dict.fromkeys(request.query.getall("run", [])))[:_MOST]

    def read(session: Session) -> tuple[list[GroupRow], list[Run], list[str]]:
        if session.is_empty:
            return [], [], []
        runs, missing = [], []
        # The oldest is what others are compared with.
        for group in sorted(map(session.store.group, wanted), key=lambda group: group.created):
            try:
                runs.append(read_run(group.group_id, session.store, session.runs))
            except UserError as error:
                missing.append(str(error))
        return session.store.groups()[:_OFFERED], runs, missing

    groups, runs, missing = await request.app[RECORDS].ask_slowly(read)
    notes = [*missing, *differing_conditions(runs)]
    return page(request, "compare.html", groups=groups, wanted=wanted, tables=tables(runs), notes=notes)


@routes.get("/run/{group}/report")
async def report(request: web.Request) -> web.StreamResponse:
    """The report in a frame of its own, in which it can neither see this server's cookies nor ask it for anything."""
    group_id = request.match_info["group"]

    def read(session: Session) -> tuple[GroupRow, str]:
        group = session.store.group(group_id)
        rows = [row for row in session.store.run_tasks(group_id).values() if row.task().kind == "report"]
        if not rows:
            raise UserError(f"{group.name} ({group_id}) makes no report: its target stage ends before")
        if rows[0].state not in DONE:
            raise UserError(f"{group.name} ({group_id}) has no report yet: {rows[0].label} is {rows[0].state}")
        names = session.engine_of(rows[0]).artifacts(rows[0].task_id)
        name = next((name for name in names if name.endswith("report.html")), None)
        if name is None:
            raise UserError(f"{rows[0].label} ({rows[0].task_id}) made no report.html")
        if isinstance(place := names[name], str):
            return group, place
        return group, f"/api/queue/v1/task/{rows[0].task_id}/artifacts/{quote(name)}"

    group, address = await request.app[RECORDS].ask_slowly(read)
    return page(request, "report.html", group=group, address=address)


def tables(runs: Sequence[Run]) -> list[tuple[str, Markup]]:
    """A table for each test set, and its name. Figures of further runs are compared with the first one's."""
    rows = list(compare_runs(runs)) if runs else []
    found = []
    for where in dict.fromkeys((row.dataset, row.direction) for row in rows):
        here = [row for row in rows if (row.dataset, row.direction) == where]
        heading = " ".join(where)
        table = _by_model(here) if len(runs) == 1 else _by_figure(here, runs, heading)
        found.append((heading, Markup(table)))
    return found


def _by_model(rows: Sequence[Row]) -> str:
    """Of one run: a line for each model, a column for each figure."""
    figures = list(dict.fromkeys(row.figure for row in rows))
    values = {(row.model, row.figure): row for row in rows}
    lines = []
    for model in dict.fromkeys(row.model for row in rows):
        cells = []
        for figure in figures:
            row = values.get((model, figure))
            cells.append(cell(row.values[0], row.texts()[0][0]) if row else cell(None))
        lines.append(name_cell(model) + "".join(cells))
    return sortable_table(rows[0].dataset, ["Model", *(figure.title for figure in figures)], lines)


def _by_figure(rows: Sequence[Row], runs: Sequence[Run], heading: str) -> str:
    """Of several runs: a line for each model's figure, a column for each run."""
    lines = [
        name_cell(row.model)
        + cell(row.figure.title)
        + "".join(cell(value, *texts) for value, texts in zip(row.values, row.texts(), strict=True))
        for row in rows
    ]
    return sortable_table(heading, ["Model", "Figure", *(run.name for run in runs)], lines)
