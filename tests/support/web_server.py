"""A web server on this machine that answers what a test tells it to."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Answer:
    body: bytes = b""
    status: int = 200
    content_type: str = "application/octet-stream"
    announced: int | None = None  # Content-Length when it is to be wrong
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class WebServer:
    url: str
    answers: dict[str, list[Answer]] = field(default_factory=dict)  # the last one is repeated
    requests: list[str] = field(default_factory=list)
    answer = Answer

    def put(self, path: str, *answers: Answer | bytes) -> str:
        """Answer a path with bytes, or with answers in turn, and return its URL."""
        self.answers[path] = [answer if isinstance(answer, Answer) else Answer(answer) for answer in answers]
        return self.url + path


@contextlib.contextmanager
def serve() -> Iterator[WebServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_HEAD(self) -> None:
            self._answer()

        def _answer(self) -> None:
            asked = self.command if self.command == "HEAD" else ""
            web.requests.append(f"{asked} {self.path}".strip())
            queue = web.answers.get(self.path, [Answer(b"nothing here", 404)])
            answer = queue.pop(0) if len(queue) > 1 else queue[0]
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            length = len(answer.body) if answer.announced is None else answer.announced
            self.send_header("Content-Length", str(length))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        def log_message(self, *_: object) -> None:
            pass

    with _running(Handler) as url:
        web = WebServer(url)
        yield web


@contextlib.contextmanager
def serve_folder(folder: Path) -> Iterator[str]:
    """The address of a server that gives out the files of a folder."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with _running(partial(Handler, directory=str(folder))) as url:
        yield url


@contextlib.contextmanager
def _running(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
