"""The services of a Taskcluster deployment, with errors for people.

Root URL and credentials come from the environment, as `taskcluster signin` and every other Taskcluster tool set them.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import requests

from pipeline.common.errors import TransientError, UserError

ROOT_URL, CLIENT_ID, ACCESS_TOKEN, CERTIFICATE = (
    f"TASKCLUSTER_{name}" for name in ("ROOT_URL", "CLIENT_ID", "ACCESS_TOKEN", "CERTIFICATE")
)
_RETRIES = 5  # of connections that fail and of the server's own errors (5xx), with back-off between them
_INDEXES_AT_ONCE = 500
_SIGNED_FOR = 3600  # seconds
_SOON = 15 * 60  # seconds; credentials that end sooner are not worth beginning with


class NotFoundError(UserError):
    """The deployment does not have it."""


class ConflictError(UserError):
    """The deployment refuses it as things stand."""


class Deployment:
    """One deployment. `root_url`: where it is, by default what the environment says.

    Without credentials in the environment, or with those of another deployment, requests are anonymous.
    """

    def __init__(self, root_url: str | None = None, retries: int = _RETRIES) -> None:
        given = os.environ.get(ROOT_URL, "").rstrip("/")
        self.root_url = (root_url or given).rstrip("/")
        if not self.root_url:
            raise UserError(f"no Taskcluster deployment is named: {_how_to_sign_in('https://your.deployment')}")
        if not re.fullmatch(r"https?://[^/\s]+", self.root_url):
            raise UserError(f"{ROOT_URL} is {self.root_url}: it must be a URL without a path, such as https://host.org")
        names = {"clientId": CLIENT_ID, "accessToken": ACCESS_TOKEN, "certificate": CERTIFICATE}
        found = {key: os.environ[name] for key, name in names.items() if os.environ.get(name)}
        # Credentials of one deployment are nothing that another one should see.
        self._credentials = found if given == self.root_url else {}
        self._retries = retries

    @property
    def signed_in(self) -> bool:
        return {"clientId", "accessToken"} <= self._credentials.keys()

    def check_credentials(self) -> None:
        """Raise UserError with what to type unless the credentials are there, are valid now and stay so for a while."""
        if not self.signed_in:
            raise UserError(f"not signed in to {self.root_url}: {_how_to_sign_in(self.root_url)}")
        if certificate := self._credentials.get("certificate"):
            try:
                expiry = float(json.loads(certificate)["expiry"]) / 1000
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{CERTIFICATE} is no certificate: {_how_to_sign_in(self.root_url)}") from error
            left = expiry - time.time()
            if left < _SOON:
                when = time.strftime("%Y-%m-%d %H:%M", time.localtime(expiry))
                raise UserError(
                    f"the temporary credentials of {self._credentials['clientId']} "
                    f"{'expired' if left <= 0 else 'expire'} at {when}: {_how_to_sign_in(self.root_url)}"
                )
        self.ask("the credentials", self.auth.currentScopes)

    def ask(self, what: str, call: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """The answer to a call of a service; `what` is what the call is about.

        Raises NotFoundError, ConflictError or another UserError for what the deployment refuses, and TransientError
        when it cannot be reached, or goes on failing.
        """
        from taskcluster.exceptions import TaskclusterConnectionError, TaskclusterFailure

        try:
            return call(*arguments, **keywords)
        except TaskclusterConnectionError as error:
            raise TransientError(f"{self.root_url} cannot be reached ({what}): {error.superExc}") from error
        except requests.exceptions.RequestException as error:
            raise TransientError(f"{self.root_url} cannot be reached ({what}): {error}") from error
        except TaskclusterFailure as error:
            raise self._explained(what, error) from error

    def pages(
        self, what: str, call: Callable[..., Any], key: str, params: Mapping[str, str], payload: Any = None
    ) -> Iterator[Any]:
        """What a service lists under `key`, over all pages. Raises as `ask` does."""
        query: dict[str, str] = {}
        body = {} if payload is None else {"payload": payload}
        while True:
            found = self.ask(what, call, params=dict(params), query=dict(query), **body)
            yield from found[key]
            if not found.get("continuationToken"):
                return
            query["continuationToken"] = found["continuationToken"]

    def find_tasks(self, paths: Iterable[str]) -> dict[str, str]:
        """Index path -> task id, of the paths that the index knows."""
        wanted = list(dict.fromkeys(paths))
        found: dict[str, str] = {}
        for first in range(0, len(wanted), _INDEXES_AT_ONCE):
            payload = {"indexes": wanted[first : first + _INDEXES_AT_ONCE]}
            for entry in self.pages("the index", self.index.findTasksAtIndex, "tasks", {}, payload):
                found[entry["namespace"]] = entry["taskId"]
        return found

    def artifact_url(self, task_id: str, run: int | None, name: str) -> str:
        """The URL of an artifact, of the newest run if `run` is None; signed, for an hour, where that is of use."""
        method = "getLatestArtifact" if run is None else "getArtifact"
        arguments = (task_id, name) if run is None else (task_id, str(run), name)
        if name.startswith("public/") or not self.signed_in:
            url: str = self.queue.buildUrl(method, *arguments)
        else:
            url = self.queue.buildSignedUrl(method, *arguments, expiration=_SIGNED_FOR)
        return url

    def task_page(self, task_id: str) -> str:
        """The page of a task for people."""
        return f"{self.root_url}/tasks/{task_id}"

    def group_page(self, group_id: str) -> str:
        """The page of a task group for people; `root_of` takes it apart."""
        return f"{self.root_url}/tasks/groups/{group_id}"

    @cached_property
    def queue(self) -> Any:
        return self._service("Queue")

    @cached_property
    def index(self) -> Any:
        return self._service("Index")

    @cached_property
    def hooks(self) -> Any:
        return self._service("Hooks")

    @cached_property
    def auth(self) -> Any:
        return self._service("Auth")

    def _service(self, name: str) -> Any:
        import taskcluster

        options = {"rootUrl": self.root_url, "credentials": dict(self._credentials), "maxRetries": self._retries}
        return getattr(taskcluster, name)(options)

    def _explained(self, what: str, error: Any) -> UserError | TransientError:
        status, said = getattr(error, "status_code", None), str(error).strip()
        body = getattr(error, "body", None)
        if isinstance(body, dict) and isinstance(body.get("message"), str):
            said = body["message"].strip()
        # What follows are details of the request, for the services' own people.
        said = said.split("\n---\n")[0].strip()
        if status == 401:
            return UserError(
                f"{self.root_url} does not accept the credentials ({said}): {_how_to_sign_in(self.root_url)}"
            )
        if status == 403:
            who = self._credentials.get("clientId", "nobody (not signed in)")
            return UserError(f"{self.root_url} does not allow {what} to {who}: {_scopes(said)}")
        if status == 404:
            return NotFoundError(f"{self.root_url} does not know {what}: {said}")
        if status == 409:
            return ConflictError(f"{self.root_url} refuses {what} as things stand: {said}")
        if status is not None and status >= 500:
            return TransientError(f"{self.root_url} fails ({what}, {status}): {said}")
        return UserError(f"{self.root_url} refuses {what} ({status or 'before it was sent'}): {said}")


def root_of(page: str) -> str:
    """The root URL of the deployment that a page of `group_page` is of."""
    return page.partition("/tasks/groups/")[0]


def _scopes(said: str) -> str:
    """What a 403 says is missing. The services put it between fences, as JSON or as a line for each scope."""
    fenced = re.search(r"```(.*?)```", said, re.DOTALL)
    if fenced is None:
        return said
    found = re.findall(r"[\w-]+:[^\s\",]+", fenced[1])
    return f"missing the scope{'s' if len(found) > 1 else ''} {', '.join(found)}" if found else said


def _how_to_sign_in(root_url: str) -> str:
    return (
        f'type eval "$({ROOT_URL}={root_url} taskcluster signin)" (the `taskcluster` shell client), or set {ROOT_URL}, '
        f"{CLIENT_ID} and {ACCESS_TOKEN}"
    )
