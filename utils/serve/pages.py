"""What all pages share: the application's parts, templates, and how figures are written for people."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from markupsafe import Markup

from limbeck_engines.task import STATES
from pipeline.common.progress import format_duration
from pipeline.evaluate.page_table import human_bytes
from pipeline.model.browser_engine.files import ModelFiles
from utils.serve.records import Records
from utils.serve.resources import Sampler
from utils.serve.security import Access
from utils.serve.task_logs import RemoteLogs

HERE = Path(__file__).parent

ACCESS = web.AppKey("access", Access)
RECORDS = web.AppKey("records", Records)
REMOTE_LOGS = web.AppKey("remote logs", RemoteLogs)
SAMPLER = web.AppKey("sampler", Sampler)
TEMPLATES = web.AppKey("templates", jinja2.Environment)


@dataclass(frozen=True)
class Tried:
    """A model that can be tried: what it is called, source and target language, its files and the engine's."""

    name: str
    languages: tuple[str, str]
    files: ModelFiles
    engine: Mapping[str, Path]


TRIED = web.AppKey("tried", Tried)


class File(web.FileResponse):
    """A file as it is. aiohttp would send `corpus.en.gz` to those who ask for `corpus.en` and can unpack it, with the
    wrong size and other parts than they asked for: exports hold both.
    """

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        headers = request.headers.copy()
        headers.popall("Accept-Encoding", None)
        return await super().prepare(request.clone(headers=headers))


def templates() -> jinja2.Environment:
    """All that is put into a page is escaped, unless it is Markup."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": _duration, "moment": _moment, "bytes": human_bytes, "path": _path}
    environment.globals |= {"bar": bar, "states": STATES}
    return environment


def render(request: web.Request, template: str, **values: Any) -> str:
    """A template's text; it also sees `request` and whether there is a model to try."""
    found = request.app[TEMPLATES].get_template(template)
    return found.render(request=request, has_runs=RECORDS in request.app, tried=request.app.get(TRIED), **values)


def page(request: web.Request, template: str, **values: Any) -> web.Response:
    answer = web.Response(text=render(request, template, **values), content_type="text/html")
    answer.enable_compression()
    return answer


def bar(counts: dict[str, int]) -> Markup:
    """A bar of the states of tasks, as wide as there are tasks of each. No style sheet can do that without scripts."""
    total = max(1, sum(counts.values()))
    parts, left = [], 0.0
    for state in STATES:
        width = 100 * counts.get(state, 0) / total
        if width:
            parts.append(
                Markup('<rect class="{}" x="{}" width="{}" height="1"></rect>').format(
                    f"fill-{state}", f"{left:.3f}", f"{width:.3f}"
                )
            )
        left += width
    return Markup('<svg class="bar" viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true">{}</svg>').format(
        Markup("").join(parts)
    )


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else format_duration(max(0.0, seconds))


def _moment(seconds: float | None) -> str:
    """Seconds since the epoch in the server's time."""
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _path(text: str) -> str:
    """Text as one part of a URL's path."""
    return quote(text, safe="")
