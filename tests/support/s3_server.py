"""An S3 server on this machine: moto behind real HTTP, which counts requests, and can refuse or hold them."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import boto3
import requests
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "models"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "toy",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    "AWS_MAX_ATTEMPTS": "1",
}


@dataclass(frozen=True)
class Request:
    method: str
    path: str  # /bucket/key
    query: str
    size: int

    @property
    def sends(self) -> bool:
        """Whether it brings (a part of) an object."""
        return self.method == "PUT" and self.path.count("/") > 1


@dataclass
class S3Server:
    url: str
    requests: list[Request] = field(default_factory=list)  # those that were answered by moto
    refuse: Callable[[Request], str | None] = lambda _: None  # a status such as "503 Slow Down" for a request
    hold: Callable[[Request], bool] = lambda _: False  # whether a request gets no answer until `released` is set
    refuse_conditions: bool = False  # whether If-None-Match is answered with 501
    released: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def sent(self) -> list[str]:
        """The keys that objects, or parts of them, were sent to."""
        return [request.path.removeprefix(f"/{BUCKET}/") for request in self.requests if request.sends]

    def wait_for(self, happened: Callable[[], bool], seconds: float = 60) -> None:
        with self.arrived:
            assert self.arrived.wait_for(happened, seconds)

    def objects(self) -> dict[str, bytes]:
        """All objects of the bucket."""
        return {entry.key: entry.get()["Body"].read() for entry in self.storage().Bucket(BUCKET).objects.all()}

    def storage(self) -> Any:
        """The storage in boto3's words."""
        keys = {"aws_access_key_id": "toy", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        return boto3.resource("s3", endpoint_url=self.url, **keys)

    def check_credentials(self, on: bool) -> None:
        """From now on only keys of users that moto knows may ask, or anybody again."""
        requests.post(f"{self.url}/moto-api/reset-auth", data="0" if on else "inf").raise_for_status()


@contextlib.contextmanager
def serve_s3() -> Iterator[S3Server]:
    """A server with an empty bucket `models`."""
    moto = DomainDispatcherApplication(create_backend_app)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = Request(
            environ["REQUEST_METHOD"],
            unquote(environ["PATH_INFO"].encode("latin-1").decode("utf-8")),
            environ["QUERY_STRING"],
            int(environ.get("CONTENT_LENGTH") or 0),
        )
        status = server.refuse(request)
        if server.refuse_conditions and "HTTP_IF_NONE_MATCH" in environ:
            status = "501 Not Implemented"
        if status:
            environ["wsgi.input"].read(request.size)
            start_response(status, [("Content-Length", "0")])
            return [b""]
        if server.hold(request):
            server.released.wait(60)
        answer: Iterable[bytes] = moto(environ, start_response)
        with server.arrived:
            server.requests.append(request)
            server.arrived.notify_all()
        return answer

    class Quiet(WSGIRequestHandler):
        def log(self, *_: object, **__: object) -> None:
            pass

    web = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    server = S3Server(f"http://127.0.0.1:{web.server_port}")
    threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    requests.post(f"{server.url}/moto-api/reset").raise_for_status()
    server.storage().create_bucket(Bucket=BUCKET)
    server.requests.clear()
    try:
        yield server
    finally:
        server.released.set()
        web.shutdown()
        web.server_close()
