"""The parts of Taskcluster's queue, index and secrets that decision tasks and workers ask, with real state."""

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

PAGE = 7  # what one answer holds of a list


@dataclass
class Services:
    """What the services know. `tasks` and `states` are by task id, `artifacts` by task id and name."""

    url: str = ""
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    index: dict[str, str] = field(default_factory=dict)
    artifacts: dict[tuple[str, str], bytes] = field(default_factory=dict)
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    expires: str = "2999-01-01T00:00:00.000Z"
    sealed: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)

    def finish(self, task_id: str) -> None:
        """Complete a task: the index gets to know it."""
        self.states[task_id] = "completed"
        for route in self.tasks[task_id].get("routes", []):
            if route.startswith("index."):
                self.index[route.removeprefix("index.")] = task_id

    def status(self, task_id: str) -> dict[str, Any]:
        state = self.states[task_id]
        run = {"state": state, "started": "2026-01-01T00:00:00.000Z", "resolved": "2026-01-01T00:00:30.000Z"}
        return {"taskId": task_id, "state": state, "expires": self.expires, "runs": [run]}

    def group(self, group_id: str) -> list[str]:
        return [task_id for task_id, task in self.tasks.items() if task.get("taskGroupId") == group_id]


class Refused(Exception):
    """An answer that is an error: status and message."""


def _routes(services: Services) -> list[tuple[str, str, Callable[..., Any]]]:
    def create(body: Any, task_id: str) -> Any:
        if body.get("taskGroupId") in services.sealed:
            raise Refused(409, "the task group is sealed")
        for dependency in body.get("dependencies", []):
            if dependency not in services.tasks:
                raise Refused(400, f"dependency {dependency} does not exist")
        services.tasks[task_id], services.states[task_id] = body, "unscheduled"
        return {"status": services.status(task_id)}

    def cancel(body: Any, group_id: str) -> Any:
        if group_id not in services.sealed:
            raise Refused(409, "the task group is not sealed")
        open_ones = [task for task in services.group(group_id) if services.states[task] not in ("completed", "failed")]
        services.states |= dict.fromkeys(open_ones, "exception")
        sizes = {"cancelledCount": len(open_ones), "taskGroupSize": len(services.group(group_id))}
        return {"taskGroupId": group_id, "taskIds": open_ones, **sizes}

    def seal(body: Any, group_id: str) -> Any:
        services.sealed.add(group_id)
        return {"taskGroupId": group_id}

    def rerun(body: Any, task_id: str) -> Any:
        services.states[task_id] = "pending"
        return {"status": services.status(task_id)}

    def artifact(body: Any, task_id: str, name: str) -> Any:
        if (task_id, name) not in services.artifacts:
            raise Refused(404, f"no artifact {name}")
        return {"storageType": "s3", "url": f"{services.url}/storage/{task_id}/{name}"}

    def secret(body: Any, name: str) -> Any:
        if name not in services.secrets:
            raise Refused(404, "no such secret")
        return {"secret": services.secrets[name], "expires": services.expires}

    known = services.tasks
    return [
        ("POST", r"/api/index/v1/tasks/indexes", lambda body: _page(
            "tasks", [{"namespace": path, "taskId": services.index[path]}
                      for path in body["indexes"] if path in services.index])),
        ("POST", r"/api/queue/v1/tasks/status", lambda body: _page(
            "statuses", [{"taskId": t, "status": services.status(t)} for t in body["taskIds"] if t in known])),
        ("POST", r"/api/queue/v1/tasks", lambda body: _page(
            "tasks", [{"taskId": t, "task": known[t]} for t in body["taskIds"] if t in known])),
        ("GET", r"/api/queue/v1/task-group/([^/]+)/list", lambda body, group: _page(
            "tasks", [{"status": services.status(t), "task": known[t]} for t in services.group(group)])),
        ("GET", r"/api/queue/v1/task/([^/]+)/artifacts", lambda body, task: _page(
            "artifacts", [{"name": name} for owner, name in services.artifacts if owner == task])),
        ("GET", r"/api/queue/v1/task/([^/]+)/artifacts/(.+)", artifact),
        ("PUT", r"/api/queue/v1/task/([^/]+)", create),
        ("POST", r"/api/queue/v1/task/([^/]+)/rerun", rerun),
        ("POST", r"/api/queue/v1/task-group/([^/]+)/seal", seal),
        ("POST", r"/api/queue/v1/task-group/([^/]+)/cancel", cancel),
        ("GET", r"/api/secrets/v1/secret/(.+)", secret),
    ]  # fmt: skip


def _page(key: str, items: list[Any]) -> Any:
    return lambda start: (
        {key: items[start : start + PAGE]}
        | ({"continuationToken": str(start + PAGE)} if start + PAGE < len(items) else {})
    )


@contextlib.contextmanager
def serve_decisions() -> Iterator[Services]:
    """Services on a port of this machine."""
    services = Services()
    routes = _routes(services)

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            path, _, query = self.path.partition("?")
            services.requests.append(f"{self.command} {unquote(path)}")
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            if path.startswith("/storage/"):
                task_id, _, name = unquote(path).removeprefix("/storage/").partition("/")
                self._send(200, services.artifacts[task_id, name])
                return
            matches = [
                (answer, re.fullmatch(pattern, path)) for method, pattern, answer in routes if method == self.command
            ]
            found_routes = [(answer, match) for answer, match in matches if match]
            if not found_routes:
                self._send(404, b"{}")
                return
            answer, match = found_routes[0]
            try:
                found = answer(body, *map(unquote, match.groups()))
            except Refused as refused:
                status, message = refused.args
                self._send(status, json.dumps({"message": message}).encode())
                return
            if callable(found):
                start = re.search(r"continuationToken=(\d+)", query)
                found = found(int(start[1]) if start else 0)
            redirect = found.get("url") if "storageType" in found else None
            self._send(303 if redirect else 200, json.dumps(found).encode(), redirect)

        do_GET = do_POST = do_PUT = _handle

        def _send(self, status: int, body: bytes, location: str | None = None) -> None:
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    services.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield services
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
