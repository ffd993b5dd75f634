"""The page of runs, served for a test by a thread of its own."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from aiohttp import web

from utils.serve.app import make_app
from utils.serve.pages import SAMPLER, Tried
from utils.serve.security import ACTION_HEADER, Access

TOKEN = "a-token-for-tests"


@dataclass
class Site:
    """`url` ends without a slash."""

    url: str
    app: web.Application

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=30, **{"allow_redirects": False, **options})

    def page(self, path: str) -> str:
        """The text of a page that has to be there."""
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        return answer.text

    def json(self, path: str) -> Any:
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def act(self, path: str, **headers: str) -> requests.Response:
        """What a button of the pages sends, with the token."""
        sent = {"Origin": self.url, ACTION_HEADER: "1", "Cookie": self.cookie, **headers}
        sent = {name: value for name, value in sent.items() if value}
        return requests.post(self.url + path, headers=sent, timeout=60)

    @property
    def cookie(self) -> str:
        return f"limbeck-{self.url.rpartition(':')[2]}={TOKEN}"

    @property
    def sampler(self) -> Any:
        return self.app[SAMPLER]


@contextlib.contextmanager
def serve_site(
    runs: Path | None, public: bool = True, loopback: bool = True, tried: Tried | None = None
) -> Iterator[Site]:
    """Serve a runs folder, and a model, on loopback. `loopback=False`: with the rules for other addresses."""
    started: list[Site] = []
    ready, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        app = make_app(runs, Access(TOKEN, loopback, public), tried, interval=0.2)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        started.append(Site(f"http://127.0.0.1:{port}", app))
        ready.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    assert ready.wait(30), "the server did not start"
    try:
        yield started[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()
