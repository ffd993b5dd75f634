"""Starting a run: the decision task of a commit offers the action `train`, whose task makes those of the run."""

import datetime
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slugid
import yaml

from limbeck_engines.taskcluster_client import Deployment, NotFoundError
from limbeck_engines.taskcluster_git import Pushed
from limbeck_taskgraph.deployment import repository_page
from pipeline.common.download import stream
from pipeline.common.errors import TransientError, UserError
from pipeline.common.progress import format_duration

ACTION = "train"
DEFINITION = ".taskcluster.yml"
_ACTIONS = "public/actions.json"


@dataclass(frozen=True)
class Patience:
    """How long is waited for a decision task, and at most between two looks; in seconds."""

    limit: float = 1800.0
    look: float = 10.0


@dataclass(frozen=True)
class DecisionTask:
    """A decision task as `.taskcluster.yml` defines it, and where the index has it once it is done."""

    definition: Mapping[str, Any]
    task_id: str
    path: str


def decision_of(project: Path, pushed: Pushed, author: str, root_url: str) -> DecisionTask:
    """The decision task of a commit, rendered from the project's `.taskcluster.yml` as for a push.

    Raises UserError when the file cannot be rendered, makes no task for a push, or does not put it into the index.
    """
    import jsone

    path = project / DEFINITION
    ids: dict[str, str] = {}

    def as_slugid(name: str) -> str:
        return ids.setdefault(name, slugid.nice())

    try:
        template = yaml.safe_load(path.read_text(encoding="utf-8"))
        context = {
            "tasks_for": "github-push",
            "taskcluster_root_url": root_url,
            "event": _push_event(pushed, author),
            "as_slugid": as_slugid,
        }
        tasks = jsone.render(template, context)["tasks"]
    except (OSError, yaml.YAMLError, jsone.JSONTemplateError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be rendered for a push of {pushed.branch}: {error}") from error
    if len(tasks) != 1:
        raise UserError(f"{path} makes {len(tasks)} tasks for a push of {pushed.branch}: it must make a decision task")
    definition = dict(tasks[0])
    task_id = str(definition.pop("taskId", None) or slugid.nice())
    routes = [str(route) for route in definition.get("routes", [])]
    found = [
        route.removeprefix("index.") for route in routes if route.startswith("index.") and pushed.revision in route
    ]
    if not found:
        raise UserError(f"{path}: the decision task has no index route with the revision: nobody could find it")
    return DecisionTask(definition, task_id, found[0])


def _push_event(pushed: Pushed, author: str) -> dict[str, Any]:
    """What GitHub says of a push, as far as a decision task needs it."""
    page = repository_page(pushed.url)
    name = page.rstrip("/").rpartition("/")[2]
    owner = page.rstrip("/").split("/")[-2]
    return {
        "ref": f"refs/heads/{pushed.branch}",
        "before": "0" * 40,
        "after": pushed.revision,
        "pusher": {"name": author.partition("@")[0], "email": author},
        "sender": {"login": author.partition("@")[0]},
        "head_commit": {"id": pushed.revision, "message": ""},
        "repository": {
            "name": name,
            "full_name": f"{owner}/{name}",
            "html_url": page,
            "url": page,
            "clone_url": f"{pushed.url}.git" if pushed.url.startswith("http") else pushed.url,
        },
    }


def create_decision(deployment: Deployment, decision: DecisionTask) -> str:
    """Create the decision task, for a deployment that hears of no pushes; returns its id."""
    what = f"creating the decision task {decision.task_id}"
    deployment.ask(what, deployment.queue.createTask, decision.task_id, decision.definition)
    return decision.task_id


def wait_for_decision(
    deployment: Deployment, path: str, task_id: str | None, patience: Patience, say: Callable[[str], None]
) -> str:
    """The id of the decision task at an index path (or of the given id) when it is done.

    Raises UserError when it failed, or when it is not there, or not done, after all patience.
    """
    began, told, pause = time.monotonic(), "", 0.25
    while True:
        found = task_id or _indexed(deployment, path)
        state = "not in the index yet"
        if found is not None:
            status = deployment.ask(f"the decision task {found}", deployment.queue.status, found)["status"]
            state = status["state"]
            if state == "completed":
                return found
            if state in ("failed", "exception"):
                raise UserError(
                    f"the decision task {found} ended as {state}: its log tells why: {deployment.task_page(found)}"
                )
        if state != told:
            say(f"waiting for the decision task of this commit: {state}")
            told = state
        waited = time.monotonic() - began
        if waited > patience.limit:
            raise UserError(
                f"no finished decision task after {format_duration(waited)} ({path}: {state}): is the repository "
                f"connected to {deployment.root_url}? --create-decision creates one without that; --decision-wait "
                "waits longer"
            )
        pause = min(2 * pause, patience.look)
        time.sleep(pause)


def _indexed(deployment: Deployment, path: str) -> str | None:
    try:
        return str(deployment.ask(f"the index path {path}", deployment.index.findTask, path)["taskId"])
    except NotFoundError:
        return None


def trigger_action(deployment: Deployment, decision_id: str, given: Mapping[str, Any], name: str = ACTION) -> str:
    """Trigger an action of a decision task with some input; returns the id of the action's task.

    Raises UserError when the decision task does not offer it.
    """
    import jsone

    url = deployment.artifact_url(decision_id, None, _ACTIONS)
    try:
        offered = json.loads(b"".join(stream(url)))
        actions = {str(action["name"]): action for action in offered["actions"]}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{_ACTIONS} of the decision task {decision_id} is not what it should be: {error}") from error
    if name not in actions:
        raise UserError(
            f"the decision task {decision_id} offers no action {name}, only {', '.join(sorted(actions)) or 'none'}: "
            "was this commit pushed?"
        )
    action = actions[name]
    context = {
        **offered["variables"],
        "input": dict(given),
        "taskId": None,
        "task": None,
        "taskGroupId": decision_id,
        "ownTaskId": slugid.nice(),
        "now": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
    }
    if action["kind"] == "task":
        definition = jsone.render(action["task"], context)
        task_id = str(context["ownTaskId"])
        deployment.ask(f"creating the task of the action {name}", deployment.queue.createTask, task_id, definition)
        return task_id
    payload = jsone.render(action["hookPayload"], context)
    hook = (action["hookGroupId"], action["hookId"])
    what = f"triggering the hook {'/'.join(hook)}"
    # Not repeated: a request whose answer was lost may have started the run.
    once = Deployment(deployment.root_url, retries=0)
    try:
        answer = once.ask(what, once.hooks.triggerHook, *hook, payload)
    except TransientError as error:
        raise TransientError(f"{error}; before you try again, see on the hook's page whether it has begun") from error
    found = answer.get("taskId") or answer.get("status", {}).get("taskId")
    if not found:
        raise TransientError(f"the hook {'/'.join(hook)} made no task: {deployment.root_url} tells why on its page")
    return str(found)
