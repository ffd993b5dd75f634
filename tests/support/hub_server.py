"""A Hugging Face Hub on this machine: repositories of files, private and gated ones too."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "1" * 40


@dataclass
class Hub:
    url: str
    folders: dict[str, Path] = field(default_factory=dict)  # by repository
    tokens: dict[str, str] = field(default_factory=dict)  # those that private repositories want
    gated: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)  # files whose body ends in the middle
    down: bool = False
    requests: list[tuple[str, str]] = field(default_factory=list)  # "METHOD path", Authorization


@contextlib.contextmanager
def serve_hub() -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_HEAD(self) -> None:
            self._answer()

        def _answer(self) -> None:
            path = self.path.partition("?")[0]
            hub.requests.append((f"{self.command} {path}", self.headers.get("Authorization", "")))
            if hub.down:
                return self._refuse(503, "")
            parts = path.strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                repository, revision = "/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main"
            else:
                repository, revision = "/".join(parts[:2]), parts[3] if len(parts) > 3 else "main"
            folder = hub.folders.get(repository)
            wanted = hub.tokens.get(repository)
            if folder is None or (wanted and self.headers.get("Authorization") != f"Bearer {wanted}"):
                return self._refuse(404 if self.headers.get("Authorization") else 401, "RepoNotFound")
            if repository in hub.gated and parts[0] != "api":
                return self._refuse(403, "GatedRepo")
            if revision not in ("main", COMMIT):
                return self._refuse(404, "RevisionNotFound")
            if parts[0] == "api":
                files = [{"rfilename": file.name} for file in sorted(folder.iterdir())]
                return self._send(json.dumps({"id": repository, "sha": COMMIT, "siblings": files}).encode())
            file = folder / parts[4]
            if not file.is_file():
                return self._refuse(404, "EntryNotFound")
            return self._send(file.read_bytes(), file.name in hub.broken)

        def _refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send(self, body: bytes, broken: bool = False) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: len(body) // 2] if broken else body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
