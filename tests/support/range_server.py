"""A web server for one file, which breaks off in the middle of it as often as a test wants."""

import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    url: str
    body: bytes
    breaks: list[int] = field(default_factory=list)  # for each of the next requests: after how many bytes it breaks off
    has_ranges: bool = True
    version: str = '"one"'  # ETag
    ranges: list[str | None] = field(default_factory=list)  # the Range of each request so far


@contextlib.contextmanager
def serve_file(body: bytes) -> Iterator[FileServer]:
    """Serve a file with Range, If-Range and ETag as RFC 9110 has them."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            file.ranges.append(asked)
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0  # type: ignore[index]
            if not file.has_ranges or self.headers.get("If-Range", file.version) != file.version:
                asked, start = None, 0
            if start >= len(file.body):
                self.send_error(416)
                return
            rest = file.body[start:]
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(rest)))
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{len(file.body) - 1}/{len(file.body)}")
            if file.version:
                self.send_header("ETag", file.version)
            self.end_headers()
            self.wfile.write(rest[: file.breaks.pop(0)] if file.breaks else rest)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    file = FileServer(f"http://127.0.0.1:{server.server_port}/file", body)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield file
    finally:
        server.shutdown()
        server.server_close()
