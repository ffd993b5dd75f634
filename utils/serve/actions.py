"""What a page may change: a run is cancelled or resumed, as the commands do it, in a process of its own.

A run that was resumed so goes on when the server ends.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from aiohttp import web

from pipeline.common.errors import UserError
from utils.serve.pages import RECORDS
from utils.serve.records import Session

_PATIENCE = 3.0  # seconds in which a command that cannot do what is asked says so

routes = web.RouteTableDef()


@routes.post("/run/{group}/cancel")
async def cancel(request: web.Request) -> web.StreamResponse:
    """Stop a run, and answer when it has stopped."""
    group_id = await _group(request)
    code, said = await _run_command(request.app[RECORDS].runs, "cancel", group_id, patience=None)
    return _answer(code, said, "cancelled")


@routes.post("/run/{group}/resume")
async def resume(request: web.Request) -> web.StreamResponse:
    """Let a run go on, and answer when it does."""
    group_id = await _group(request)
    code, said = await _run_command(request.app[RECORDS].runs, "resume", group_id, patience=_PATIENCE)
    return _answer(code, said, "resumed")


async def _group(request: web.Request) -> str:
    def read(session: Session) -> str:
        return session.store.group(request.match_info["group"]).group_id

    return await request.app[RECORDS].ask(read)


async def _run_command(runs: Path, name: str, group_id: str, patience: float | None) -> tuple[int | None, str]:
    """Its exit code and what it said; after `patience` seconds None, and it goes on by itself."""
    # A file and no pipe: nobody has to read what it says later, when this server may be gone.
    with tempfile.TemporaryFile() as said:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "utils.cli", name, "--runs", str(runs.resolve()), "--", group_id),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            code: int | None = await asyncio.wait_for(process.wait(), patience)
        except TimeoutError:
            code = None
        said.seek(0)
        return code, said.read(1 << 16).decode("utf-8", "replace").strip()


def _answer(code: int | None, said: str, done: str) -> web.Response:
    if code == 2:
        raise UserError(said.splitlines()[-1].removeprefix("error: ") if said else "the command failed")
    if code not in (None, 0, 1):
        raise web.HTTPInternalServerError(text=said.splitlines()[-1] if said else f"the command ended with {code}")
    return web.Response(text=done)
