"""Where artifacts are, on this machine or at the URLs of a deployment, and how both are read."""

import json
from pathlib import Path
from typing import Any

import requests

from limbeck_engines.base import Engine
from pipeline.common.download import stream
from pipeline.common.errors import UserError

BUILD = "public/build"
Place = Path | str  # a path, or a URL


def folder_of(engine: Engine, task_id: str, name: str = "") -> Place | None:
    """Where a completed task's artifact `public/build/NAME` is, a file or a folder, by default all of them.

    None when it has no such artifact.
    """
    wanted = f"{BUILD}/{name}".rstrip("/")
    for artifact, place in engine.artifacts(task_id).items():
        if artifact == wanted:
            return place
        if artifact.startswith(f"{wanted}/"):
            inside = artifact.removeprefix(wanted)
            return str(place).removesuffix(inside) if isinstance(place, str) else Path(str(place).removesuffix(inside))
    return None


def read_json_at(engine: Engine, task_id: str, name: str) -> Any:
    """The content of a completed task's JSON artifact. Raises UserError when it has none, or it cannot be read."""
    place = engine.artifacts(task_id).get(name)
    if place is None:
        raise UserError(f"task {task_id} has no artifact {name}")
    try:
        return json.loads(place.read_bytes() if isinstance(place, Path) else b"".join(stream(place)))
    except (OSError, ValueError) as error:
        raise UserError(f"{place} cannot be read: {error}") from error


def told_sha256(url: str) -> str | None:
    """The SHA-256 (hex) that the storage behind a URL tells of the content, as Taskcluster's workers note it there."""
    try:
        with requests.head(url, allow_redirects=True, timeout=30) as response:
            told = (response.headers.get(f"x-{vendor}-meta-content-sha256") for vendor in ("amz", "goog", "ms"))
            return next((value.lower() for value in told if value), None)
    except requests.exceptions.RequestException:
        return None  # the download itself says what is wrong
