"""A Taskcluster deployment on this machine: queue, index, hooks and auth over HTTP, with hawk, scopes and real state.

Where LIMBECK_TASKCLUSTER_SCHEMAS is set, what is created is judged by the services' own schemas.
"""

import base64
import contextlib
import hashlib
import hmac
import json
import logging
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import mohawk
import taskcluster_schemas
from taskcluster_state import END, Refusal, State, scope_satisfied

logging.getLogger("mohawk.base").setLevel(logging.ERROR)  # nonces are not looked at here
CLIENT, TOKEN = "tester", "a" * 44
PUBLIC = ["queue:get-artifact:public/*"]
# Method, route and the scope that it needs; (…) are the arguments.
_ROUTES = {
    ("GET", r"auth/v1/scopes/current"): ("current_scopes", None),
    ("GET", r"queue/v1/task/([^/]+)"): ("task", None),
    ("PUT", r"queue/v1/task/([^/]+)"): ("create_task", "queue:create-task:*"),
    ("GET", r"queue/v1/task/([^/]+)/status"): ("status", None),
    ("POST", r"queue/v1/tasks"): ("tasks", None),
    ("POST", r"queue/v1/tasks/status"): ("statuses", None),
    ("POST", r"queue/v1/task/([^/]+)/rerun"): ("rerun", "queue:rerun-task:*"),
    ("POST", r"queue/v1/task/([^/]+)/cancel"): ("cancel", "queue:cancel-task:*"),
    ("GET", r"queue/v1/task-group/([^/]+)/list"): ("list_group", None),
    ("POST", r"queue/v1/task-group/([^/]+)/seal"): ("seal", "queue:seal-task-group:*"),
    ("POST", r"queue/v1/task-group/([^/]+)/cancel"): ("cancel_group", "queue:cancel-task-group:*"),
    ("GET", r"queue/v1/task/([^/]+)/runs/(\d+)/artifacts"): ("list_artifacts", None),
    ("POST", r"queue/v1/task/([^/]+)/runs/(\d+)/artifacts/(.+)"): ("create_artifact", "queue:create-artifact:*"),
    ("GET", r"queue/v1/task/([^/]+)/runs/(\d+)/artifacts/(.+)"): ("artifact", None),
    ("HEAD", r"queue/v1/task/([^/]+)/runs/(\d+)/artifacts/(.+)"): ("artifact", None),
    ("GET", r"queue/v1/task/([^/]+)/artifacts/(.+)"): ("latest_artifact", None),
    ("GET", r"index/v1/task/(.+)"): ("find_task", None),
    ("POST", r"index/v1/tasks/indexes"): ("find_tasks", None),
    ("POST", r"hooks/v1/hooks/([^/]+)/([^/]+)/trigger"): ("trigger", "hooks:trigger-hook:*"),
}


@dataclass
class Fault:
    """The next `times` requests whose method and path match are answered with a status."""

    pattern: str
    status: int
    times: int


@dataclass
class TaskclusterServer:
    """Where it is, what it keeps, who may do what, and what was asked of it."""

    url: str
    state: State = field(default_factory=State)
    clients: dict[str, tuple[str, list[str]]] = field(default_factory=lambda: {CLIENT: (TOKEN, ["*"])})
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    page: int = 1000  # entries of one page
    proxy_url: str = ""

    def fail(self, pattern: str, status: int = 500, times: int = 1) -> None:
        self.faults.append(Fault(pattern, status, times))


class _Handler(BaseHTTPRequestHandler):
    server_object: TaskclusterServer
    is_proxy = False

    def do_GET(self) -> None:
        self._answer()

    do_PUT = do_POST = do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass

    @property
    def _state(self) -> State:
        return self.server_object.state

    def _answer(self) -> None:
        server = self.server_object
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        server.requests.append(f"{self.command} {unquote(path)}")
        try:
            for fault in server.faults:
                if fault.times > 0 and re.search(fault.pattern, f"{self.command} {unquote(path)}"):
                    fault.times -= 1
                    raise Refusal(fault.status, "InternalServerError", "as asked for by the test")
            if path.startswith("/storage/"):
                self._storage(path, body)
                return
            scopes = self._scopes(body)
            for (method, pattern), (name, scope) in _ROUTES.items():
                found = re.fullmatch(f"/api/{pattern}", path)
                if found and method == self.command:
                    if scope and not scope_satisfied(scope.rstrip("*") or scope, _widened(scopes, scope)):
                        raise _insufficient(scope)
                    self._respond(name, [unquote(part) for part in found.groups()], body, scopes)
                    return
            raise Refusal(404, "ResourceNotFound", f"no such API: {self.command} {path}")
        except Refusal as refusal:
            self._send(refusal.status, {"code": refusal.code, "message": str(refusal), "requestInfo": {}})
        except taskcluster_schemas.ValidationError as error:
            self._send(400, {"code": "InputValidationError", "message": f"Schema Validation Failed! {error.message}"})
        except (BrokenPipeError, ConnectionResetError):
            pass

    def _scopes(self, body: bytes) -> list[str]:
        """Those of the client that signed the request. Refuses a bad signature and expired credentials."""
        if self.is_proxy:
            return ["*"]
        query = parse_qs(urlsplit(self.path).query)
        if "bewit" in query:
            said = base64.urlsafe_b64decode(query["bewit"][0] + "==").decode()
            client = said.split("\\")[0]
            return PUBLIC + self.server_object.clients[client][1]
        header = self.headers.get("Authorization")
        if header is None:
            return PUBLIC
        client = re.search(r'id="([^"]+)"', header)[1]  # type: ignore[index]
        extension = re.search(r'ext="([^"]+)"', header)
        token, scopes = self.server_object.clients.get(client, ("", []))
        if extension:
            certificate = json.loads(base64.urlsafe_b64decode(extension[1] + "==")).get("certificate")
            if certificate:
                if certificate["expiry"] < time.time() * 1000:
                    raise Refusal(401, "AuthenticationFailed", "ext.certificate.expiry < now")
                secret, scopes = self.server_object.clients[certificate.get("issuer", client)]
                mac = hmac.new(secret.encode(), certificate["seed"].encode(), hashlib.sha256).digest()
                token, scopes = base64.urlsafe_b64encode(mac).rstrip(b"=").decode(), certificate["scopes"]
        try:
            if not token:
                raise mohawk.exc.CredentialsLookupError(f"Bad Request: no such client {client}")
            mohawk.Receiver(
                lambda _: {"id": client, "key": token, "algorithm": "sha256"},
                header,
                f"http://{self.headers['Host']}{self.path}",
                self.command,
                content=body.decode(),
                content_type=self.headers.get("Content-Type", ""),
            )
        except mohawk.exc.HawkFail as error:
            raise Refusal(401, "AuthenticationFailed", f"Authentication failed: {str(error)[:100]}") from error
        return PUBLIC + scopes

    def _respond(self, name: str, arguments: list[str], body: bytes, scopes: list[str]) -> None:
        payload = json.loads(body) if body else {}
        query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        with self._state.lock:
            answer = getattr(self, f"_{name}")(*arguments, payload=payload, query=query, scopes=scopes)
        if answer is not None:
            self._send(200, answer)

    def _page(self, key: str, entries: list[Any], query: dict[str, str], **more: Any) -> dict[str, Any]:
        start = int(query.get("continuationToken", "0"))
        size = min(self.server_object.page, int(query.get("limit", "100000")))
        page = {key: entries[start : start + size], **more}
        return page | ({"continuationToken": str(start + size)} if start + size < len(entries) else {})

    def _current_scopes(self, scopes: list[str], **_: Any) -> Any:
        return {"scopes": scopes}

    def _task(self, task_id: str, **_: Any) -> Any:
        self._state.status(task_id)
        return self._state.tasks[task_id]

    def _status(self, task_id: str, **_: Any) -> Any:
        return {"status": self._state.status(task_id)}

    def _tasks(self, payload: Any, query: dict[str, str], **_: Any) -> Any:
        known = [task_id for task_id in payload["taskIds"] if task_id in self._state.tasks]
        return self._page("tasks", [{"taskId": one, "task": self._state.tasks[one]} for one in known], query)

    def _statuses(self, payload: Any, query: dict[str, str], **_: Any) -> Any:
        known = [task_id for task_id in payload["taskIds"] if task_id in self._state.tasks]
        return self._page("statuses", [{"taskId": one, "status": self._state.statuses[one]} for one in known], query)

    def _create_task(self, task_id: str, payload: Any, scopes: list[str], **_: Any) -> Any:
        for scope in [*payload.get("scopes", []), *(f"queue:route:{route}" for route in payload.get("routes", []))]:
            if not scope_satisfied(scope, scopes):
                raise _insufficient(scope)
        return {"status": self._state.create(task_id, payload)}

    def _rerun(self, task_id: str, **_: Any) -> Any:
        return {"status": self._state.rerun(task_id)}

    def _cancel(self, task_id: str, **_: Any) -> Any:
        return {"status": self._state.cancel(task_id)}

    def _list_group(self, group_id: str, query: dict[str, str], **_: Any) -> Any:
        group, state = self._state.group(group_id), self._state
        found = [{"task": state.tasks[one], "status": state.statuses[one]} for one in group.tasks]
        expires = "2100-01-01T00:00:00.000Z"
        return self._page("tasks", found, query, taskGroupId=group_id, schedulerId=group.scheduler, expires=expires)

    def _seal(self, group_id: str, **_: Any) -> Any:
        group = self._state.group(group_id)
        group.sealed = True
        return {"taskGroupId": group_id, "schedulerId": group.scheduler, "expires": "2100-01-01T00:00:00.000Z"}

    def _cancel_group(self, group_id: str, **_: Any) -> Any:
        return self._state.cancel_group(group_id)

    def _list_artifacts(self, task_id: str, run: str, query: dict[str, str], **_: Any) -> Any:
        number = self._state.run_of(task_id, int(run))
        return self._page("artifacts", self._state.list_artifacts(task_id, number), query)

    def _create_artifact(self, task_id: str, run: str, name: str, payload: Any, **_: Any) -> Any:
        self._state.put_artifact(task_id, int(run), name, payload)
        answer = {key: payload[key] for key in ("storageType", "expires", "contentType")}
        return {**answer, "putUrl": f"{self.server_object.url}/storage/{task_id}/{run}/{name}"}

    def _latest_artifact(self, task_id: str, name: str, **more: Any) -> Any:
        return self._artifact(task_id, str(self._state.run_of(task_id, None)), name, **more)

    def _artifact(self, task_id: str, run: str, name: str, scopes: list[str], **_: Any) -> Any:
        if not scope_satisfied(f"queue:get-artifact:{name}", scopes):
            raise _insufficient(f"queue:get-artifact:{name}")
        artifact = self._state.artifacts.get((task_id, self._state.run_of(task_id, int(run)), name))
        if artifact is None:
            raise Refusal(404, "ResourceNotFound", "Artifact not found")
        kind = artifact.request["storageType"]
        if kind == "error":
            self._send(403, {key: artifact.request[key] for key in ("reason", "message")})
            return None
        if kind == "link":
            return self._artifact(task_id, run, artifact.request["artifact"], scopes)
        url = artifact.request.get("url") or f"{self.server_object.url}/storage/{task_id}/{run}/{name}"
        self._send(303, {"storageType": kind, "url": url}, Location=url)
        return None

    def _find_task(self, path: str, **_: Any) -> Any:
        if path not in self._state.index:
            raise Refusal(404, "ResourceNotFound", f"Indexed task not found: {path}")
        return self._state.index[path]

    def _find_tasks(self, payload: Any, query: dict[str, str], **_: Any) -> Any:
        found = [self._state.index[path] for path in payload["indexes"] if path in self._state.index]
        return self._page("tasks", found, query)

    def _trigger(self, group: str, hook: str, payload: Any, **_: Any) -> Any:
        return self._state.trigger(group, hook, payload)

    def _storage(self, path: str, body: bytes) -> None:
        _, _, task_id, run, name = unquote(path).split("/", 4)
        artifact = self._state.artifacts.get((task_id, int(run), name))
        if self.command == "PUT" and "Content-Length" not in self.headers:
            self._send(411, {"Code": "MissingContentLength"})  # as S3
        elif self.command == "PUT" and artifact is not None:
            artifact.content = body
            self._send(200, {})
        elif artifact is None or artifact.content is None:
            self._send(404, {"Code": "NoSuchKey"})
        else:
            self.send_response(200)
            headers = {"Content-Length": str(len(artifact.content)), **artifact.headers}
            if name == "public/logs/live.log":
                del headers["Content-Length"]
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(artifact.content)
                if name == "public/logs/live.log":
                    self._stream(task_id, int(run), artifact.content)

    def _stream(self, task_id: str, run: int, sent: bytes) -> None:
        """What is written to a log until its run ends."""
        while True:
            ended = self._state.statuses[task_id]["runs"][run]["state"] in END
            content = self._state.artifacts[task_id, run, "public/logs/live.log"].content or b""
            self.wfile.write(content[len(sent) :])
            self.wfile.flush()
            sent = content
            if ended:
                return
            time.sleep(0.02)

    def _send(self, status: int, answer: Any, **headers: str) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _widened(scopes: list[str], needed: str) -> list[str]:
    """The scopes, each that is below the needed one standing for it: which task or hook it is of is not looked at."""
    return [needed if one.startswith(needed.rstrip("*")) else one for one in scopes]


def _insufficient(scope: str) -> Refusal:
    return Refusal(
        403,
        "InsufficientScopes",
        f"Client ID {CLIENT} does not have sufficient scopes and is missing the following scopes:\n\n"
        f"```\n{scope}\n```\n"
        f"\nThis request requires the client to satisfy the following scope expression:\n\n```\n{scope}\n```\n\n"
        "---\n\n* method: x\n* errorCode: InsufficientScopes",
    )


@contextlib.contextmanager
def serve_taskcluster() -> Iterator[TaskclusterServer]:
    """A deployment, and a taskcluster-proxy to it, until the context ends."""
    deployment = TaskclusterServer("")
    if taskcluster_schemas._FOLDER:
        deployment.state.check = taskcluster_schemas.check
    servers = []
    for is_proxy in (False, True):
        handler = type("Handler", (_Handler,), {"server_object": deployment, "is_proxy": is_proxy})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
    deployment.url, deployment.proxy_url = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    try:
        yield deployment
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
