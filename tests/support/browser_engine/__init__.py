"""The browser's engine for tests: in Node and in Chromium.

Where Node, npm, the package or a browser cannot be had, what needs them is skipped and says so.
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tiny_model import tiny_model, toy_pairs

from pipeline.common.errors import TransientError, UserError
from pipeline.common.files import sha256, write_json
from pipeline.model.browser_engine import BrowserEngine, ModelFiles, engine_files, engine_folder
from pipeline.model.browser_engine.install import check_node
from pipeline.model.calibration import calibrate
from pipeline.model.formats import bergamot
from pipeline.model.vocab import Vocab

HERE = Path(__file__).parent
# Tiny models need little memory.
OPTIONS = {**bergamot.OPTIONS, "workspace": 16}
TEXTS = [source for source, _ in toy_pairs(4, seed=7)]
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

    @property
    def files(self) -> ModelFiles:
        return ModelFiles(self.model, self.vocabs, {**OPTIONS, **self.options}, self.shortlist)


@functools.cache
def needs_engine() -> Path:
    """The folder of the installed package; skips the test, with the reason, when it cannot be had."""
    try:
        check_node()
        return engine_folder()
    except (UserError, TransientError) as error:
        pytest.skip(str(error))


def translate_in_node(*jobs: Job) -> list[list[str]]:
    """The translations of each job by the engine in Node, sentence by sentence, so that none depends on another."""
    needs_engine()
    translations = []
    with BrowserEngine(jobs[0].files, TIMEOUT) as engine:
        for job in jobs:
            engine.load(job.files)
            translations.append([engine.translate([sentence])[0] for sentence in job.sentences])
    return translations


def translate_in_chromium(*jobs: Job) -> list[list[str]]:
    """The same in a page of headless Chromium, which gets everything from a server on this machine."""
    needs_engine()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium to run the browser's engine in")
    served: dict[str, Path | bytes] = {f"/{name}": path for name, path in engine_files().items()}
    served["/page.html"] = HERE / "page.html"

    loaded = [path for job in jobs for path in (job.files.model, *job.files.vocabs, job.files.shortlist) if path]
    served |= {str(path): path for path in loaded}
    described = [{**job.files.described(), "sentences": list(job.sentences)} for job in jobs]
    served["/jobs.json"] = json.dumps(described).encode()
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
    """The engine in Chromium did not translate."""


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


def tiny_export(folder: Path, vocabs: Sequence[Path], **changes: Any) -> Path:
    """The browser's folder of a random model, with one vocabulary or with two; not what a real export checks."""
    model = tiny_model(**changes)
    vocab = Vocab.load(vocabs[0])
    pair = "ende"
    names = ["vocab"] if len(vocabs) == 1 else ["srcvocab", "trgvocab"]
    folder.mkdir(parents=True)
    files = {"model": folder / f"model.{pair}.intgemm.alphas.bin"}
    bergamot.save(model, files["model"], calibrate(model, vocab.encode(TEXTS, add_eos=False)))
    for name, path in zip(names, vocabs, strict=True):
        files[name] = folder / f"{name}.{pair}.spm"
        shutil.copyfile(path, files[name])
    described = {
        role: {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)} for role, path in files.items()
    }
    metadata = {"src": "en", "trg": "de", "parameters": 1234, "files": described, "engine-options": OPTIONS}
    write_json(folder / "metadata.json", metadata)
    return folder
