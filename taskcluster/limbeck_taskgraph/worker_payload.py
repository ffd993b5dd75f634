"""What a task's definition needs beside its stage to run on a Taskcluster worker.

The stage's command stays as it is, the last argument of a command that gets the sources, the environment, the inputs
and the secrets (taskcluster/scripts, taskcluster_worker.py) and then runs it in the folders that the local engine has.
"""

import functools
import json
from collections.abc import Iterator
from typing import Any

from taskgraph.transforms.base import TransformConfig
from taskgraph.util.workertypes import worker_type_implementation

from limbeck_taskgraph.catalogue import ROOT
from limbeck_taskgraph.deployment import Deployment, deployment_of, index_path
from pipeline.common.errors import UserError

# What an image of taskcluster/docker works in.
DOCKER_WORKDIR = "/builds/worker"
# The system takes no variable and no argument of more than 128 KB.
FETCHES_SIZE = 100_000
ARGUMENT_SIZE = 30_000  # characters, of up to 4 bytes
_TASK_ID_LENGTH = 22
# What a task with the proxy may ask the queue.
READING = {"queue:get-artifact:public/*", "queue:get-task:*", "queue:list-artifacts:*", "queue:status:*"}


def on_taskcluster(config: TransformConfig, task: dict[str, Any], training_config: dict[str, Any]) -> dict[str, Any]:
    """The task as a deployment's workers run it. One that only gathers others has no payload and is not indexed."""
    task = {
        **task,
        "expires-after": config.graph_config["task-expires-after"],
        "deadline-after": config.graph_config["task-deadline-after"],
    }
    if "worker" not in task:
        return task
    attributes = task["attributes"]
    languages = [attributes["src_locale"], attributes["trg_locale"]]
    path = index_path(config.graph_config, config.params["level"], config.kind, languages, attributes["digest"])
    task["routes"] = [f"index.{path}"]
    task["worker-type"] = _worker_type(config, task["worker-type"], training_config)
    task["worker"] = _worker(config, deployment_of(config.graph_config), task)
    return task


def _worker_type(config: TransformConfig, alias: str, training_config: dict[str, Any]) -> str:
    """The alias for the class that the training config wants its workers of."""
    classes = training_config["taskcluster"]["worker-classes"]
    wanted = classes.get(config.kind, classes.get("default", "gcp-standard"))
    if wanted != "gcp-spot":
        return alias
    if f"{alias}-spot" not in config.graph_config["workers"]["aliases"]:
        raise UserError(
            f"taskcluster.worker-classes: {config.kind} is to run on gcp-spot, but workers.aliases in "
            f"taskcluster/config.yml has no {alias}-spot"
        )
    return f"{alias}-spot"


def _worker(config: TransformConfig, deployment: Deployment, task: dict[str, Any]) -> dict[str, Any]:
    worker = dict(task["worker"])
    stage_command = worker["command"][0][-1]
    parts = [stage_command[start : start + ARGUMENT_SIZE] for start in range(0, len(stage_command), ARGUMENT_SIZE)]
    command = start_command(["python3", "-m", "limbeck_taskgraph.taskcluster_worker", *parts])
    secrets = _secrets(config, deployment, worker["env"])
    scopes = {f"secrets:get:{secret['secret']}" for secret in secrets.values()}
    worker["env"] = {
        **worker["env"],
        **_fetches(worker["env"]["MOZ_FETCHES"]["task-reference"]),
        **source_environment(config.params),
        **({"LIMBECK_SECRETS": json.dumps(secrets, sort_keys=True)} if secrets else {}),
    }
    if "$LIMBECK_CONFIG" in stage_command:
        # The action's task has the run's config among its artifacts.
        worker["env"]["LIMBECK_RUN"] = {"task-reference": "<decision>"}
    worker["max-run-time"] = min(worker["max-run-time"], deployment.max_run_time)
    # A training publishes its checkpoints; the others list artifacts or ask about other tasks.
    asks = any(f"${name}" in stage_command for name in ("LIMBECK_CHECKPOINTS", "LIMBECK_DURATIONS"))
    folders = '/"' in task["worker"]["env"]["MOZ_FETCHES"]["task-reference"]
    worker["taskcluster-proxy"] = bool(secrets) or asks or folders or not deployment.anonymous_reads
    if worker["taskcluster-proxy"]:
        scopes |= READING
    task["scopes"] = sorted(scopes)
    implementation, _ = worker_type_implementation(config.graph_config, task["worker-type"])
    if implementation == "docker-worker":
        return _docker_worker(worker, deployment, task["worker-type"], command)
    if implementation == "generic-worker":
        return _generic_worker(worker, deployment, command)
    raise UserError(
        f"taskcluster/config.yml: workers.aliases: {task['worker-type']}: the implementation is {implementation!r}; "
        "allowed: generic-worker, docker-worker"
    )


def _generic_worker(worker: dict[str, Any], deployment: Deployment, command: list[str]) -> dict[str, Any]:
    environment = deployment.environment
    if environment.prepared:
        return {**worker, "command": [command], "env": worker["env"] | {"LIMBECK_ENVIRONMENT": environment.prepared}}
    variables = {
        "LIMBECK_PYTHON": environment.python,
        "LIMBECK_EXTRAS": ",".join(environment.extras),
        "LIMBECK_PIP_ARGUMENTS": " ".join(environment.pip_arguments),
    }
    return {
        **worker,
        "command": [command],
        "env": worker["env"] | variables,
        "mounts": [{"cache-name": "environment", "directory": "environment"}],
    }


def _docker_worker(
    worker: dict[str, Any], deployment: Deployment, worker_type: str, command: list[str]
) -> dict[str, Any]:
    return {
        **worker,
        "docker-image": deployment.docker_image(worker_type),
        "command": command,
        "env": worker["env"] | {"TASK_WORKDIR": DOCKER_WORKDIR},
        "artifacts": [{**artifact, "path": f"{DOCKER_WORKDIR}/{artifact['path']}"} for artifact in worker["artifacts"]],
    }


def start_command(words: list[str]) -> list[str]:
    """The command that gets the sources that `source_environment` names and runs the given words there."""
    return ["bash", "-c", _checkout_script(), "limbeck", *words]


@functools.cache
def _checkout_script() -> str:
    return (ROOT / "scripts" / "checkout.sh").read_text(encoding="utf-8")


def source_environment(parameters: Any) -> dict[str, str]:
    """The variables that say which sources a task works with."""
    return {
        "LIMBECK_REPOSITORY": parameters["head_repository"],
        "LIMBECK_REVISION": parameters["head_rev"],
        "LIMBECK_REF": parameters["head_ref"],
    }


def _secrets(config: TransformConfig, deployment: Deployment, environment: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {
        variable: {"secret": secret.secret, "key": secret.key}
        for variable, secret in sorted(deployment.secrets.items())
        if config.kind in secret.kinds or (secret.with_variable and secret.with_variable in environment)
    }


def _fetches(references: str) -> dict[str, dict[str, str]]:
    """MOZ_FETCHES, and MOZ_FETCHES_2 and so on where one variable cannot hold them all."""
    parts = [json.dumps(part, sort_keys=True) for part in _parts(json.loads(references))]
    return {
        "MOZ_FETCHES" if number == 1 else f"MOZ_FETCHES_{number}": {"task-reference": part}
        for number, part in enumerate(parts, 1)
    }


def _parts(fetches: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    part: list[dict[str, Any]] = []
    size = 0
    for fetch in fetches:
        # The label becomes a task id, which may be longer.
        length = len(json.dumps(fetch)) + _TASK_ID_LENGTH
        if part and size + length > FETCHES_SIZE:
            yield part
            part, size = [], 0
        part.append(fetch)
        size += length
    yield part
