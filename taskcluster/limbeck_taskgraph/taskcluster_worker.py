"""Run a stage's command on a Taskcluster worker, in the folders that the local engine would give it.

    python -m limbeck_taskgraph.taskcluster_worker COMMAND

The inputs that MOZ_FETCHES names are fetched from the queue to $MOZ_FETCHES_DIR, the secrets that LIMBECK_SECRETS names
become variables, and bash is this process from then on. Exit code 75 says that the same task may succeed later.
"""

import itertools
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import requests
import taskcluster_urls
from taskcluster.exceptions import TaskclusterConnectionError, TaskclusterRestFailure

import taskcluster
from pipeline.common.download import download
from pipeline.common.errors import EXIT_FAILED, EXIT_RETRY, TransientError, UserError

_DOWNLOADS = 4  # at a time
_NOT_FOUND = 404

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare and become the command; the exit code is of a preparation that failed."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if len(words) != 1:
            raise UserError("one argument is needed: the command to run")
        environment = prepare(os.environ)
    except TransientError as error:
        logger.error(error)
        return EXIT_RETRY
    except UserError as error:
        logger.error(error)
        return EXIT_FAILED
    os.chdir(environment["TASK_WORKDIR"])
    os.execvpe("bash", ["bash", "-c", words[0]], environment)


def prepare(given: Mapping[str, str]) -> dict[str, str]:
    """Make the task's folders, fetch its inputs and secrets, and return its environment.

    Raises UserError for an input or secret that there is not, TransientError when a service cannot be reached.
    """
    environment = dict(given)
    work = Path(environment.setdefault("TASK_WORKDIR", str(Path.cwd())))
    environment |= {"MOZ_FETCHES_DIR": str(work / "fetches"), "LIMBECK_CHECKPOINTS": str(work / "checkpoints")}
    for folder in ("fetches", "checkpoints", "artifacts"):
        (work / folder).mkdir(exist_ok=True)
    fetches = take_fetches(environment)
    if fetches:
        _fetch_all(fetches, work / "fetches", _service(environment, "queue", "artifacts"))
    environment |= secret_values(json.loads(environment.pop("LIMBECK_SECRETS", "{}")), environment)
    return environment


def take_fetches(environment: dict[str, str]) -> list[dict[str, Any]]:
    """What MOZ_FETCHES and, for many inputs, MOZ_FETCHES_2 and so on name. They leave the environment: they are large."""
    found: list[dict[str, Any]] = []
    for number in itertools.count(1):
        text = environment.pop("MOZ_FETCHES" if number == 1 else f"MOZ_FETCHES_{number}", None)
        if text is None:
            return found
        found += json.loads(text)
    raise AssertionError("count never ends")


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
        list(pool.map(lambda artifact: _download(artifact, queue), artifacts))
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
    artifact.target.parent.mkdir(parents=True, exist_ok=True)
    address = taskcluster_urls.api(
        queue.options["rootUrl"], "queue", "v1", f"task/{artifact.task_id}/artifacts/{quote(artifact.name)}"
    )
    try:
        download(address, artifact.target)
    except requests.RequestException as error:
        raise TransientError(
            f"the input {artifact.name} of task {artifact.task_id} cannot be fetched: {error}"
        ) from error


def secret_values(wanted: Mapping[str, Mapping[str, str]], environment: Mapping[str, str]) -> dict[str, str]:
    """The values of the secrets by variable, asked of the worker's proxy."""
    if not wanted:
        return {}
    if "TASKCLUSTER_PROXY_URL" not in environment:
        raise UserError("LIMBECK_SECRETS is set, but TASKCLUSTER_PROXY_URL is not: the task needs taskclusterProxy")
    service = taskcluster.Secrets({"rootUrl": environment["TASKCLUSTER_PROXY_URL"]})
    values = {}
    for variable, place in wanted.items():
        name, key = place["secret"], place["key"]
        content = _ask(lambda name=name: service.get(name), f"the secret {name}")["secret"]  # type: ignore[misc]
        if key not in content:
            raise UserError(f"the secret {name} has no key {key}; it has {', '.join(sorted(content))}")
        values[variable] = str(content[key])
    return values


def _service(environment: Mapping[str, str], name: str, what: str) -> Any:
    """A client; artifacts are public, so no proxy is needed for them."""
    root = environment.get("TASKCLUSTER_PROXY_URL") or environment.get("TASKCLUSTER_ROOT_URL")
    if not root:
        raise UserError(f"TASKCLUSTER_ROOT_URL is not set: nobody says where {what} are")
    return getattr(taskcluster, name.capitalize())({"rootUrl": root})


def _ask(question: Any, what: str) -> Any:
    try:
        return question()
    except TaskclusterConnectionError as error:
        raise TransientError(f"{what} cannot be had now: {error}") from error
    except TaskclusterRestFailure as error:
        if error.status_code >= 500:
            raise TransientError(f"{what} cannot be had now: {error}") from error
        missing = " (there is none)" if error.status_code == _NOT_FOUND else ""
        raise UserError(f"{what} cannot be had{missing}: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
