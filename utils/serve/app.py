"""The server: its parts put together, and what a person sees when something is wrong."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from pipeline.common.errors import TransientError, UserError
from utils.serve import actions, curves, queue_api, runs_pages, scores_pages, task_pages, try_page
from utils.serve.pages import ACCESS, HERE, RECORDS, REMOTE_LOGS, SAMPLER, TEMPLATES, TRIED, Tried, page, templates
from utils.serve.records import Records
from utils.serve.resources import Sampler
from utils.serve.security import API, Access, add_headers, guard
from utils.serve.task_logs import RemoteLogs

logger = logging.getLogger(__name__)


def make_app(runs: Path | None, access: Access, tried: Tried | None = None, interval: float = 2.0) -> web.Application:
    """The pages of a runs folder and of a model to try, or of one of them.

    `interval` is between two samples of what tasks take of the machine, in seconds.
    """
    app = web.Application(middlewares=[explain_errors, guard(access)])
    app[ACCESS] = access
    app[TEMPLATES] = templates()
    app.on_response_prepare.append(add_headers)
    if runs is not None:
        app[RECORDS] = Records(runs)
        app[REMOTE_LOGS] = RemoteLogs()
        app[SAMPLER] = Sampler(app[RECORDS], interval)
        for module in (runs_pages, task_pages, curves, scores_pages, queue_api, actions):
            app.add_routes(module.routes)
        app.cleanup_ctx.append(_sampling)
    if tried is not None:
        app[TRIED] = tried
        app.add_routes(try_page.routes)
        if runs is None:
            app.router.add_get("/", _to_try)
    app.router.add_static("/static/", HERE / "static")
    return app


async def _to_try(_: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("/try")


async def _sampling(app: web.Application) -> AsyncIterator[None]:
    task = asyncio.create_task(app[SAMPLER].run())
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    app[RECORDS].close()


@web.middleware
async def explain_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors as pages, or as the queue's JSON where a program asks."""
    try:
        return await handler(request)
    except (UserError, TransientError) as error:
        status, message = (404 if isinstance(error, UserError) else 503), str(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        status, message = error.status, error.text or error.reason
    except Exception:
        logger.exception(f"{request.method} {request.path}")
        status, message = 500, "The server made a mistake; its terminal tells more."
    if request.path.startswith(API):
        return error_json(request, status, message)
    if "text/html" not in request.headers.get("Accept", "*/*") and request.method != "GET":
        return web.Response(status=status, text=message)
    answer = page(request, "error.html", message=message, status=status)
    answer.set_status(status)
    return answer


_CODES = {400: "InputError", 401: "AuthenticationFailed", 403: "InsufficientScopes", 404: "ResourceNotFound"}


def error_json(request: web.Request, status: int, message: str) -> web.Response:
    """An error as Taskcluster's services tell it."""
    info = {"method": request.method, "params": dict(request.match_info), "payload": {}}
    error = {"code": _CODES.get(status, "InternalServerError"), "message": message, "requestInfo": info}
    return web.json_response(error, status=status)
