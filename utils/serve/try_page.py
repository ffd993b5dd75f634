"""A page on which a person types and a student answers, computed in the browser by the engine that Firefox has.

The server hands out files only: the export's, and the engine's, which npm installed. Nothing that is typed is sent.
"""

from pathlib import Path

import yaml
from aiohttp import web

from limbeck_engines.task import DONE
from pipeline.common.errors import UserError
from pipeline.model.browser_engine import engine_files
from pipeline.model.browser_engine.files import RUN_OPTIONS, ModelFiles, is_browser_export
from utils.common import find_task, open_engine, open_store
from utils.serve.pages import HERE, TRIED, Tried, page
from utils.serve.security import WORKER_POLICY

_EXPORT = "browser"  # the folder that an export for the browser has beside other exports
_TYPES = {".js": "text/javascript; charset=utf-8", ".wasm": "application/wasm"}
_KEPT = {"Cache-Control": "no-cache"}  # kept, but asked about: another model has the same address

routes = web.RouteTableDef()


def find_model(name: str, runs: Path) -> Tried:
    """The model that `--try` names: a browser export's folder or the one above it, or a task, by its label or id.

    Raises UserError when there is none, or its files are not those that were exported, and what engine_files raises.
    """
    folder = _export(Path(name)) if Path(name).is_dir() else _export_of_task(name, runs)
    files = ModelFiles.of_export(folder)
    try:
        languages = (str(files.metadata["src"]), str(files.metadata["trg"]))
    except KeyError as error:
        raise UserError(f"{folder}/metadata.json has no {error}: export the model again") from error
    return Tried(name, languages, files, engine_files())


def _export(folder: Path) -> Path:
    for place in (folder, folder / _EXPORT):
        if is_browser_export(place):
            return place
    raise UserError(f"--try {folder}: neither it nor {folder / _EXPORT} holds an export for the browser")


def _export_of_task(name: str, runs: Path) -> Path:
    store = open_store(runs)
    if store is None:
        raise UserError(f"--try {name}: there is no such folder, and nothing has run in {runs} yet")
    try:
        row = find_task(store, name, done=True)
    except UserError as error:
        raise UserError(f"--try {name}: there is no such folder, and {error}") from error
    if row.state not in DONE:
        raise UserError(f"--try {name}: {row.label} ({row.task_id}) is {row.state}, so it has no artifacts yet")
    places = open_engine(store, store.group(row.group_id)).artifacts(row.task_id).values()
    folders = dict.fromkeys(place.parent for place in places if isinstance(place, Path))
    found = next((folder for folder in folders if is_browser_export(folder)), None)
    if found is None:
        raise UserError(f"--try {name}: {row.label} ({row.task_id}) has no export for the browser on this machine")
    return found


@routes.get("/try")
async def try_page(request: web.Request) -> web.StreamResponse:
    return page(request, "try.html", model=request.app[TRIED])


@routes.get("/try/model.json")
async def description(request: web.Request) -> web.StreamResponse:
    """What the engine needs to load the model: addresses of files, and its options (YAML)."""
    files = request.app[TRIED].files
    places = {"model": "/try/files/model", "vocabs": [f"/try/files/vocab-{n}" for n, _ in enumerate(files.vocabs)]}
    if files.shortlist:
        places["shortlist"] = "/try/files/shortlist"
    options = yaml.safe_dump({**files.options, **RUN_OPTIONS})
    languages = request.app[TRIED].languages
    return web.json_response({**places, "options": options, "src": languages[0], "trg": languages[1]})


@routes.get("/try/files/{role}")
async def model_file(request: web.Request) -> web.StreamResponse:
    files = request.app[TRIED].files
    known = {"model": files.model} | {f"vocab-{number}": path for number, path in enumerate(files.vocabs)}
    if files.shortlist:
        known["shortlist"] = files.shortlist
    path = known.get(request.match_info["role"])
    if path is None:
        raise web.HTTPNotFound(text=f"the model has no {request.match_info['role']}")
    return web.FileResponse(path, headers={**_KEPT, "Content-Type": "application/octet-stream"})


@routes.get("/try/worker.js")
async def worker(_: web.Request) -> web.StreamResponse:
    """What loads the engine: a worker has the policy that it comes with, and not the page's."""
    headers = {"Content-Type": _TYPES[".js"], "Content-Security-Policy": WORKER_POLICY}
    return web.FileResponse(HERE / "static" / "try_worker.js", headers=headers)


@routes.get("/try/engine/{name:.+}")
async def engine_file(request: web.Request) -> web.StreamResponse:
    path = request.app[TRIED].engine.get(request.match_info["name"])
    if path is None:
        raise web.HTTPNotFound(text=f"the engine has no {request.match_info['name']}")
    return web.FileResponse(path, headers={**_KEPT, "Content-Type": _TYPES[path.suffix]})
