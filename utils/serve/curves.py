"""Curves: of training, of one or several runs over each other, and of what a task takes. Figures are plotly's JSON.

The browser draws them with plotly's own script, which comes with its Python package, in the colours of the page.
"""

import functools
import importlib.util
import json
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from limbeck_engines.store import GroupRow, TaskRow
from limbeck_engines.task import DONE, RUNNING
from pipeline.common.errors import UserError
from pipeline.common.remote import fetch
from utils.serve.pages import RECORDS, page
from utils.serve.records import Session, shown_state
from utils.serve.resources import Sample
from utils.serve.runs_pages import live

TRAINING_LOG = "train.jsonl"
_RUNS = 40  # the newest, whose trainings can be chosen
_MOST = 12  # curves that are shown together
_POINTS = 3000  # of a curve; more are thinned out evenly

_TITLES = {
    "train-cost": "Training cost per word",
    "chrf": "chrF on the validation set",
    "bleu-detok": "BLEU on the validation set",
    "bleu": "BLEU on the validation set",
    "ce-mean-words": "Validation cost per word",
    "cross-entropy": "Validation cost of all",
    "perplexity": "Perplexity on the validation set",
    "lr": "Learning rate",
    "words-per-second": "Words per second",
    "gradient-norm": "Norm of gradients",
    "padding": "Share of padding",
    "waiting": "Share of time waiting for data",
    "mfu": "Share of the device's peak (MFU)",
}
# What a record says of itself rather than of the training.
_NO_CURVES = ("update", "epoch", "seconds", "best", "stalled")

routes = web.RouteTableDef()


@dataclass(frozen=True)
class Training:
    """A task that has a curve. `path` is the file that it grows in; None where it is to be had from its engine."""

    row: TaskRow
    group: GroupRow
    path: Path | None
    state: str

    @property
    def name(self) -> str:
        return f"{self.row.label} ({self.group.group_id[:8]})"


@functools.cache
def plotly_script_path() -> Path:
    """The script in plotly's Python package, which is never imported: that takes a second."""
    found = importlib.util.find_spec("plotly")
    if found is None or found.origin is None:
        raise UserError("the charts need the Python package plotly, which is not installed: pip install plotly")
    return Path(found.origin).parent / "package_data" / "plotly.min.js"


@functools.cache
def plotly_style_ids() -> list[str]:
    """Names of the style sheets that plotly's script would bring into a page, against the page's policy: none of them
    is needed for charts (they are of maps). It brings none whose name is taken.
    """
    return re.findall(r'getElementById\("([0-9a-f]{64})"\)', plotly_script_path().read_text(encoding="utf-8"))


@routes.get("/static/plotly.js")
async def plotly_script(request: web.Request) -> web.StreamResponse:
    headers = {"Content-Type": "text/javascript; charset=utf-8", "Cache-Control": "private, max-age=86400"}
    return web.FileResponse(plotly_script_path(), headers=headers)


@routes.get("/curves")
async def curves_page(request: web.Request) -> web.StreamResponse:
    trainings = await request.app[RECORDS].ask(_trainings)
    chosen = _chosen(request, trainings)
    groups: dict[str, list[Training]] = {}
    for training in trainings:
        groups.setdefault(training.group.group_id, []).append(training)
    return page(
        request,
        "curves.html",
        groups=groups,
        chosen={training.row.task_id for training in chosen},
        style_ids=plotly_style_ids(),
    )


@routes.get("/curves/data")
async def curves_data(request: web.Request) -> web.StreamResponse:
    """The figures of the tasks that are named."""
    wanted = list(dict.fromkeys(request.query.getall("task", [])))[:_MOST]

    def read(session: Session) -> list[Training]:
        found = []
        for task_id in wanted:
            row = session.store.task(task_id)
            if training := find_curve(session, row):
                found.append(training)
        return found

    trainings = await request.app[RECORDS].ask(read)
    series = [(training.name, await _records(request, training)) for training in trainings]
    running = any(training.state == RUNNING for training in trainings)
    return live(request, {"figures": training_figures(series), "running": running})


async def _records(request: web.Request, training: Training) -> list[dict[str, Any]]:
    if training.path is not None:
        return read_records(training.path)
    row = training.row

    def fetch_records(session: Session) -> list[dict[str, Any]]:
        places = session.engine_of(row).artifacts(row.task_id)
        place = next((place for name, place in places.items() if name.endswith(f"/{TRAINING_LOG}")), None)
        if place is None:
            return []
        with tempfile.TemporaryDirectory() as folder:
            fetch(str(place), Path(folder) / TRAINING_LOG)
            return read_records(Path(folder) / TRAINING_LOG)

    return await request.app[RECORDS].ask_once(("curve", row.task_id, row.run), fetch_records)


def _chosen(request: web.Request, trainings: Sequence[Training]) -> list[Training]:
    """The trainings that the address names, or those of the newest run that has any."""
    tasks, runs = request.query.getall("task", []), request.query.getall("run", [])
    found = [training for training in trainings if training.row.task_id in tasks or training.group.group_id in runs]
    if not found and not tasks and trainings:
        newest = trainings[0].group.group_id
        found = [training for training in trainings if training.group.group_id == newest]
    return found[:_MOST]


def _trainings(session: Session) -> list[Training]:
    """All tasks with a curve, those of the newest run first."""
    if session.is_empty:
        return []
    found = []
    for group in session.store.groups()[:_RUNS]:
        for row in session.status(group.group_id).tasks:
            if training := find_curve(session, row):
                found.append(training)
    return found


def find_curve(session: Session, row: TaskRow) -> Training | None:
    """The curve of a task that trains, also while it does; None when it has none."""
    source = session.store.resolve(row.task_id) if row.reused_from else row
    if source is None:
        return None
    # While it runs the newest is beside its checkpoints; then among its artifacts.
    places = [session.layout.checkpoints(source.digest) / TRAINING_LOG]
    if source.run is not None:
        run = session.layout.run(source.task_id, source.run)
        places.insert(0, run / "artifacts" / "public" / "build" / TRAINING_LOG)
        places.append(run / "work" / "artifacts" / TRAINING_LOG)
    path = next((place for place in places if place.is_file()), None)
    if path is None and (session.has_files(source) or source.state not in DONE or not _trains(source)):
        return None
    return Training(row, session.store.group(row.group_id), path, shown_state(row))


def _trains(row: TaskRow) -> bool:
    return any(word in row.task().kind for word in ("train", "finetune"))


def read_records(path: Path) -> list[dict[str, Any]]:
    """The validations of a train.jsonl; what is no record (a file that just now goes away) is passed over."""
    records = []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and _is_number(record.get("update")):
            records.append(record)
    return records


def training_figures(series: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> list[dict[str, Any]]:
    """A figure for each quantity that any training recorded, those that people look at first."""
    keys = {
        key: None
        for _, records in series
        for record in records
        for key, value in record.items()
        if key not in _NO_CURVES and _is_number(value)
    }
    order = [*(key for key in _TITLES if key in keys), *sorted(keys.keys() - _TITLES.keys())]
    figures = []
    for key in order:
        traces = []
        for number, (name, records) in enumerate(series):
            points = _thinned([(record["update"], record[key]) for record in records if _is_number(record.get(key))])
            if points:
                traces.append(_trace(name, points, number))
        figures.append(_figure(key, _TITLES.get(key, key), "updates", traces))
    return figures


def resource_figures(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Processors, memory and, where there are GPUs, their use, over minutes since the first sample."""
    if not samples:
        return []
    first = samples[0].moment
    minutes = [round((sample.moment - first) / 60, 3) for sample in samples]
    cpus = [sample.cpus for sample in samples]
    gigabytes = [sample.memory / 1e9 for sample in samples]
    figures = [
        _figure(key, title, "minutes", [_trace(name, list(zip(minutes, values, strict=True)), color)])
        for key, title, name, values, color in (
            ("cpus", "Processors in use", "processors", cpus, 0),
            ("memory", "Memory in GB", "memory", gigabytes, 1),
        )
    ]
    on_gpu = [(minute, sample) for minute, sample in zip(minutes, samples, strict=True) if sample.gpu is not None]
    if on_gpu:
        used = [(minute, 100 * (sample.gpu or 0.0)) for minute, sample in on_gpu]
        memory = [(minute, (sample.gpu_memory or 0) / 1e9) for minute, sample in on_gpu]
        figures.append(_figure("gpu", "GPU in use, %", "minutes", [_trace("GPU", used, 2)]))
        figures.append(_figure("gpu-memory", "GPU memory in GB", "minutes", [_trace("GPU memory", memory, 3)]))
    return figures


def _trace(name: str, points: Sequence[tuple[float, float]], color: int) -> dict[str, Any]:
    """`meta.color` is a colour of the page (--c0 …), which differs between light and dark."""
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(points) < 40 else "lines",
        "name": name,
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        "meta": {"color": color % 6, "dash": color // 6},
    }


def _figure(key: str, title: str, x_title: str, traces: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    layout = {"xaxis": {"title": {"text": x_title, "standoff": 4}, "rangemode": "tozero"}, "showlegend": False}
    return {"key": key, "title": title, "data": list(traces), "layout": layout}


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points in order of their updates, every n-th where they are many; the last one always."""
    ordered = sorted(points)
    step = max(1, math.ceil(len(ordered) / _POINTS))
    chosen = ordered[::step]
    return chosen if not ordered or chosen[-1] == ordered[-1] else [*chosen, ordered[-1]]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
