"""Run a stage's command on a Taskcluster worker, in the folders that the local engine would give it.

    python -m limbeck_taskgraph.taskcluster_worker COMMAND…

The inputs that MOZ_FETCHES names are fetched from the queue to $MOZ_FETCHES_DIR, the secrets that LIMBECK_SECRETS names
become variables, and the command is this process from then on, under limbeck_engines.taskcluster_checkpoints if it
keeps checkpoints. A command that is too long for one argument is given in parts, which are put together again. Exit
code 75 says that the same task may succeed later.
"""

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import requests
import taskcluster_urls
from taskcluster.exceptions import TaskclusterConnectionError, TaskclusterFailure, TaskclusterRestFailure

import taskcluster
from pipeline.common.download import download
from pipeline.common.errors import EXIT_FAILED, EXIT_RETRY, TransientError, UserError

CONFIG = "training-config.yml"
_DOWNLOADS = 4  # at a time
_BATCH = 500  # task ids in one request
_RETRIES = 5
_NOT_FOUND = 404

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare and become the command; the exit code is of a preparation that failed."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if not words:
            raise UserError("an argument is needed: the command to run")
        command = "".join(words)
        environment = prepare(os.environ, command)
    except TransientError as error:
        logger.error(error)
        return EXIT_RETRY
    except UserError as error:
        logger.error(error)
        return EXIT_FAILED
    os.chdir(environment["TASK_WORKDIR"])
    script = Path(environment["TASK_WORKDIR"], "stage.sh")
    script.write_text(command, encoding="utf-8")
    program = ["bash", str(script)]
    if "$LIMBECK_CHECKPOINTS" in command:
        program = ["python3", "-m", "limbeck_engines.taskcluster_checkpoints", "--", *program]
    return os.execvpe(program[0], program, environment)


def prepare(given: Mapping[str, str], command: str) -> dict[str, str]:
    """Make the task's folders, fetch its inputs and secrets and what else it names, and return its environment.

    Raises UserError for an input or secret that there is not, TransientError when a service cannot be reached.
    """
    environment = dict(given)
    work = Path(environment.setdefault("TASK_WORKDIR", str(Path.cwd())))
    places = {
        "MOZ_FETCHES_DIR": work / "fetches",
        "LIMBECK_CHECKPOINTS": work / "checkpoints",
        "LIMBECK_CONFIG": work / CONFIG,
        "LIMBECK_DURATIONS": work / "durations.json",
    }
    environment |= {name: str(place) for name, place in places.items()}
    for folder in ("fetches", "checkpoints", "artifacts"):
        (work / folder).mkdir(exist_ok=True)
    queue = _queue(environment)
    _fetch_all(take_fetches(environment), places["MOZ_FETCHES_DIR"], queue)
    if "$LIMBECK_CONFIG" in command:
        _download(Artifact(environment["LIMBECK_RUN"], f"public/{CONFIG}", places["LIMBECK_CONFIG"]), queue)
    if "$LIMBECK_DURATIONS" in command:
        places["LIMBECK_DURATIONS"].write_text(json.dumps(durations(environment["TASK_ID"], queue)), encoding="utf-8")
    environment |= secret_values(json.loads(environment.pop("LIMBECK_SECRETS", "{}")), environment)
    return environment


def take_fetches(environment: dict[str, str]) -> list[dict[str, Any]]:
    """What MOZ_FETCHES names, and for many inputs MOZ_FETCHES_2 and so on. These large variables are taken away."""
    found: list[dict[str, Any]] = []
    name, number = "MOZ_FETCHES", 1
    while name in environment:
        found += json.loads(environment.pop(name))
        number += 1
        name = f"MOZ_FETCHES_{number}"
    return found


@dataclass(frozen=True)
class Artifact:
    """An artifact of a finished task, and the file that it becomes."""

    task_id: str
    name: str
    target: Path


def _fetch_all(fetches: list[dict[str, Any]], folder: Path, queue: Any) -> None:
    artifacts = [artifact for fetch in fetches for artifact in _artifacts(fetch, folder, queue)]
    if len({artifact.target for artifact in artifacts}) < len(artifacts):
        raise UserError("two inputs have the same name: give them a dest each")
    with ThreadPoolExecutor(_DOWNLOADS) as pool:
        for artifact in artifacts:
            artifact.target.parent.mkdir(parents=True, exist_ok=True)
        list(pool.map(lambda artifact: _download(artifact, queue), artifacts))
    if artifacts:
        logger.info(f"{len(artifacts)} inputs fetched")


def _artifacts(fetch: dict[str, Any], folder: Path, queue: Any) -> Iterator[Artifact]:
    """One artifact, or all below a folder (a name that ends in a slash)."""
    task_id, name, target = fetch["task"], fetch["artifact"], folder / (fetch.get("dest") or "")
    if not (_is_inside(name) and _is_inside(fetch.get("dest") or "")):
        raise UserError(f"the input {name} (to {fetch.get('dest') or '.'}) has a path that leads out of its folder")
    if not name.endswith("/"):
        yield Artifact(task_id, name, target / PurePosixPath(name).name)
        return
    below = [found for found in _names(task_id, queue) if found.startswith(name)]
    if not below:
        raise UserError(f"the input {name} of task {task_id} is missing: the task has no artifact below it")
    for found in below:
        yield Artifact(task_id, found, target / PurePosixPath(name).name / found.removeprefix(name))


def _is_inside(path: str) -> bool:
    return not path.startswith("/") and ".." not in PurePosixPath(path).parts


def _names(task_id: str, queue: Any) -> list[str]:
    pages: list[dict[str, Any]] = []
    _ask(lambda: queue.listLatestArtifacts(task_id, paginationHandler=pages.append), f"the artifacts of task {task_id}")
    return [artifact["name"] for page in pages for artifact in page["artifacts"]]


def _download(artifact: Artifact, queue: Any) -> None:
    address = taskcluster_urls.api(
        queue.options["rootUrl"], "queue", "v1", f"task/{artifact.task_id}/artifacts/{quote(artifact.name)}"
    )
    try:
        download(address, artifact.target)
    except requests.RequestException as error:
        raise TransientError(f"{artifact.name} of task {artifact.task_id} cannot be fetched: {error}") from error


def durations(task_id: str, queue: Any) -> dict[str, float]:
    """Seconds that the finished tasks of each stage took, of all that a task stands on."""
    stages: dict[str, str] = {}
    seen, unread = set[str](), [task_id]
    while unread:
        seen |= set(unread)
        found = _batched(queue.tasks, unread, "tasks", "the definitions of tasks")
        stages |= {item["taskId"]: stage for item in found if (stage := _stage_of(item["task"]))}
        # What the queue has forgotten is not among those found.
        unread = sorted({upstream for item in found for upstream in item["task"].get("dependencies", [])} - seen)
    seconds: dict[str, float] = {}
    for item in _batched(queue.statuses, sorted(stages), "statuses", "the states of tasks"):
        status = item["status"]
        if status["state"] == "completed" and status["runs"][-1].get("started"):
            run, stage = status["runs"][-1], stages[status["taskId"]]
            taken = datetime.fromisoformat(run["resolved"]) - datetime.fromisoformat(run["started"])
            seconds[stage] = seconds.get(stage, 0.0) + taken.total_seconds()
    return seconds


def _stage_of(task: Mapping[str, Any]) -> str | None:
    stage: str | None = task.get("extra", {}).get("limbeck", {}).get("stage")
    return stage


def _batched(method: Any, task_ids: Sequence[str], key: str, what: str) -> list[dict[str, Any]]:
    pages: list[dict[str, Any]] = []
    for start in range(0, len(task_ids), _BATCH):
        asked = {"taskIds": task_ids[start : start + _BATCH]}
        _ask(lambda asked=asked: method(payload=asked, paginationHandler=pages.append), what)
    return [item for page in pages for item in page[key]]


def secret_values(wanted: Mapping[str, Mapping[str, str]], environment: Mapping[str, str]) -> dict[str, str]:
    """The values of the secrets by variable, asked of the worker's proxy."""
    if not wanted:
        return {}
    if "TASKCLUSTER_PROXY_URL" not in environment:
        raise UserError("LIMBECK_SECRETS is set, but TASKCLUSTER_PROXY_URL is not: the task needs taskclusterProxy")
    service = _service("Secrets", environment["TASKCLUSTER_PROXY_URL"])
    values = {}
    for variable, place in wanted.items():
        name, key = place["secret"], place["key"]
        content = _ask(lambda name=name: service.get(name), f"the secret {name}")["secret"]
        if key not in content:
            raise UserError(f"the secret {name} has no key {key}; it has {', '.join(sorted(content))}")
        values[variable] = str(content[key])
    return values


def _queue(environment: Mapping[str, str]) -> Any:
    """The queue; through the proxy, if there is one, with what the task may do."""
    root = environment.get("TASKCLUSTER_PROXY_URL") or environment.get("TASKCLUSTER_ROOT_URL")
    if not root:
        raise UserError("TASKCLUSTER_ROOT_URL is not set: nobody says where the queue is")
    return _service("Queue", root)


def _service(name: str, root: str) -> Any:
    return getattr(taskcluster, name)({"rootUrl": root, "maxRetries": _RETRIES})


def _ask(question: Any, what: str) -> Any:
    try:
        return question()
    except TaskclusterConnectionError as error:
        raise TransientError(f"{what} cannot be had now: {error}") from error
    except TaskclusterFailure as error:
        status = error.status_code if isinstance(error, TaskclusterRestFailure) else 0
        if status >= 500:
            raise TransientError(f"{what} cannot be had now: {error}") from error
        missing = " (there is none)" if status == _NOT_FOUND else ""
        raise UserError(f"{what} cannot be had{missing}: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
