"""Bergamot, the engine of Firefox's translations, as its makers publish it for pages: in Node and in Chromium.

The package comes from npm, once, into a cache; it is a dependency of tests alone. Where Node, npm, the package or a
browser cannot be had, what needs them is skipped and says so.
"""

import functools
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.common.errors import TransientError, UserError
from pipeline.model.browser_engine import engine_folder
from pipeline.model.formats import bergamot

HERE = Path(__file__).parent
PACKAGE = "node_modules/@browsermt/bergamot-translator"
# One sentence is one sentence, whatever its punctuation; tiny models need little memory.
OPTIONS = {**bergamot.OPTIONS, "workspace": 16, "ssplit-mode": "sentence", "cpu-threads": 0, "quiet-translation": True}
TIMEOUT = 120  # seconds for one translation of a test's sentences
_TYPES = {".html": "text/html", ".js": "text/javascript", ".json": "application/json", ".wasm": "application/wasm"}


@dataclass(frozen=True)
class Job:
    """Sentences to translate, what the engine loads for them (one vocabulary when both languages share it), and
    options that differ from OPTIONS."""

    model: Path
    vocabs: Sequence[Path]
    sentences: Sequence[str]
    shortlist: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def described(self, place: Callable[[Path], str]) -> dict[str, Any]:
        """What translate.mjs and page.html read; `place` says where they find a file."""
        return {
            "model": place(self.model),
            "vocabs": [place(vocab) for vocab in self.vocabs],
            "shortlist": place(self.shortlist) if self.shortlist else None,
            "options": yaml.safe_dump({**OPTIONS, **self.options}),
            "sentences": list(self.sentences),
        }


@functools.cache
def needs_engine() -> Path:
    """The folder of the installed package; skips the test, with the reason, when it cannot be had."""
    try:
        return engine_folder()
    except (UserError, TransientError) as error:
        pytest.skip(str(error))


def translate_in_node(*jobs: Job) -> list[list[str]]:
    """The translations of each job by the engine in Node, sentence by sentence. Raises EngineError with the engine's
    own message."""
    installed = needs_engine()
    with tempfile.TemporaryDirectory(prefix="browser-job-") as folder:
        path = Path(folder) / "jobs.json"
        path.write_text(json.dumps([job.described(str) for job in jobs]))
        command = ["node", str(HERE / "translate.mjs"), str(installed), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    if done.returncode:
        raise EngineError(done.stderr)
    translations: list[list[str]] = json.loads(done.stdout)
    return translations


def translate_in_chromium(*jobs: Job) -> list[list[str]]:
    """The same in a page of headless Chromium, which gets everything from a server on this machine."""
    installed = needs_engine()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium to run the browser's engine in")
    served: dict[str, Path | bytes] = {
        "/page.html": HERE / "page.html",
        "/engine.js": HERE / "engine.js",
        "/worker.js": installed / PACKAGE / "worker/bergamot-translator-worker.js",
        "/worker.wasm": installed / PACKAGE / "worker/bergamot-translator-worker.wasm",
    }

    def place(path: Path) -> str:
        served[f"/files{path}"] = path
        return f"/files{path}"

    served["/jobs.json"] = json.dumps([job.described(place) for job in jobs]).encode()
    answers: queue.Queue[dict[str, Any]] = queue.Queue()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(served, answers))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        # Without a sandbox: in containers there is none to be had, and the page is our own.
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]
        url = f"http://127.0.0.1:{server.server_port}/page.html"
        with (Path(profile) / "log").open("w") as log:
            browser = subprocess.Popen(
                [chromium, *flags, f"--user-data-dir={profile}", url], stdout=log, stderr=log, start_new_session=True
            )
        try:
            answer = answers.get(timeout=TIMEOUT)
        except queue.Empty:
            raise EngineError(f"no answer from Chromium: {(Path(profile) / 'log').read_text()[-1000:]}") from None
        finally:
            os.killpg(browser.pid, signal.SIGTERM)
            browser.wait()
            server.shutdown()
            server.server_close()
    if "error" in answer:
        raise EngineError(answer["error"])
    translations: list[list[str]] = answer["translations"]
    return translations


class EngineError(Exception):
    """The engine did not translate."""


def _handler(served: dict[str, Path | bytes], answers: "queue.Queue[dict[str, Any]]") -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = served.get(self.path)
            if content is None:
                self.send_error(404)
                return
            body = content if isinstance(content, bytes) else content.read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", _TYPES.get(Path(self.path).suffix, "application/octet-stream"))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            answers.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return Handler
