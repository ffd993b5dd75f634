"""The section `deployment` of config.yml: what a Taskcluster deployment is called and offers."""

from typing import Any

import msgspec
from taskgraph.util.schema import Schema

from pipeline.common.errors import UserError


class Secret(Schema):
    """Where the value of a variable comes from, and which tasks get it."""

    secret: str
    key: str
    # Tasks that set this variable.
    with_variable: str | None = None
    # Tasks of these kinds.
    kinds: list[str] = []  # noqa: RUF012 (msgspec copies defaults)


class Environment(Schema):
    """A task's Python packages on generic-worker."""

    # The path of a virtual environment that the machines have.
    prepared: str | None = None
    python: str = "python3"
    extras: list[str] = []  # noqa: RUF012
    pip_arguments: list[str] = []  # noqa: RUF012


class Deployment(Schema):
    """See the comments in config.yml."""

    root_url: str
    owner: str
    level: str
    decision_worker: str
    max_dependencies: int
    max_depth: int
    max_run_time: int
    environment: Environment
    anonymous_reads: bool = True
    docker_images: dict[str, str] = {}  # noqa: RUF012
    secrets: dict[str, Secret] = {}  # noqa: RUF012

    def docker_image(self, worker_type: str) -> str:
        """The image for tasks of a worker type. Raises UserError when none is named."""
        image = self.docker_images.get(worker_type) or self.docker_images.get("default")
        if image is None:
            raise UserError(
                f"taskcluster/config.yml: deployment.docker-images names no image for {worker_type} and no default"
            )
        return image


def deployment_of(graph_config: Any) -> Deployment:
    """The section of a loaded config.yml. Raises UserError with the key that is wrong."""
    if "deployment" not in graph_config:
        raise UserError("taskcluster/config.yml: the section deployment is missing; docs/taskcluster.md describes it")
    try:
        return msgspec.convert(graph_config["deployment"], Deployment)
    except msgspec.ValidationError as error:
        raise UserError(f"taskcluster/config.yml: deployment: {error}") from error


def index_path(graph_config: Any, level: str, kind: str, languages: list[str], digest: str) -> str:
    """Where the index finds a finished task. The pair stands in it, so that none is taken for another's."""
    return f"{graph_config['trust-domain']}.cache.level-{level}.{kind}.{'-'.join(languages)}.{digest}"


def repository_role(repository: str, what: str) -> str:
    """The role of a repository that scopes come from, as taskcluster-github names it.

    `what` is such as `branch:main` or `action:generic`. `https://host/org/name.git` and `git@host:org/name` are the
    same repository.
    """
    return f"assume:repo:{repository_page(repository).split('://', 1)[1]}:{what}"


def repository_page(repository: str) -> str:
    """The address of a repository that a person can open, https://host/org/name; localhost for one in a folder."""
    address = repository.strip().removesuffix("/").removesuffix(".git")
    if address.startswith(("file://", "/")):
        return f"https://localhost/{address.removeprefix('file://').removeprefix('localhost').strip('/')}"
    if "://" not in address:  # git@host:org/name
        host, _, path = address.rpartition("@")[2].partition(":")
        return f"https://{host}/{path}"
    scheme, rest = address.split("://", 1)
    return f"{scheme if scheme == 'http' else 'https'}://{rest.rpartition('@')[2]}"
