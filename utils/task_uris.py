"""Tasks of the runs folder as sources of a continuation: `task/<taskId>/artifacts/…`, a task's URL, or a bare id.

The pipeline knows files and no tasks, so such an address becomes the path of what it means before a graph is rendered.
"""

import re
from pathlib import Path
from typing import Any

from limbeck_engines.store import Store
from limbeck_engines.task import DONE
from limbeck_engines.taskcluster_client import root_of
from limbeck_taskgraph.training_config import TrainingConfig
from pipeline.common.errors import UserError

BUILD = "public/build"
# An id as slugid makes it: a random UUID in base 64.
_ID = r"[\w-]{8}[Q-T][\w-][CGKOSWaeimquy26-][\w-]{10}[AQgw]"
_ADDRESS = re.compile(
    rf"(?:(?P<server>https?://\S+)/api/queue/v1/)?task/(?P<task>{_ID})(?:/runs/(?P<run>\d+))?/artifacts/(?P<name>.+)",
    re.ASCII,
)
_BARE_ID = re.compile(_ID, re.ASCII)


def with_local_tasks(config: TrainingConfig, store: Store | None, as_paths: bool = True) -> TrainingConfig:
    """The config with the tasks that its `continuation` names replaced by the paths of their artifacts.

    Artifacts that another deployment keeps are named by URL. A URL of a task that is not known here stays as it is;
    so do all where paths mean nothing (not `as_paths`). Raises UserError for any other unknown task, for one that is
    not finished, and for an artifact that it does not have.
    """
    values = config.model_dump(by_alias=True, exclude_unset=True)
    if not values.get("continuation"):
        return config
    replaced = _replace(values["continuation"], "continuation", store, as_paths)
    return TrainingConfig.model_validate({**values, "continuation": replaced})


def _replace(value: Any, key: str, store: Store | None, as_paths: bool) -> Any:
    if isinstance(value, dict):
        return {name: _replace(part, f"{key}.{name}", store, as_paths) for name, part in value.items()}
    if isinstance(value, list):
        return [_replace(part, f"{key}.{number}", store, as_paths) for number, part in enumerate(value)]
    if not isinstance(value, str):
        return value
    if _BARE_ID.fullmatch(value) and not Path(value).exists():
        return str(_artifact(value, None, BUILD, key, store))
    address = _ADDRESS.fullmatch(value)
    if address is None:
        return value
    known = store is not None and store.find_task(address["task"]) is not None
    if address["server"] and not (known and as_paths):
        return value
    return str(_artifact(address["task"], address["run"], address["name"], key, store))


def _artifact(task_id: str, run: str | None, name: str, key: str, store: Store | None) -> Path | str:
    """The path of a finished task's artifact, a file or a folder, or its URL when it is not in the runs folder."""
    row = store.find_task(task_id) if store else None
    if store is None or row is None:
        raise UserError(
            f"{key}: there is no task {task_id} in the runs folder: give the URL of its artifact, or a path"
        )
    if row.state not in DONE:
        raise UserError(f"{key}: {row.label} ({task_id}) is {row.state}, so it has no artifacts yet")
    if page := store.group(row.group_id).url:
        of_run = "" if run is None else f"/runs/{run}"
        return f"{root_of(page)}/api/queue/v1/task/{task_id}{of_run}/artifacts/{name}"
    folder = store.run_folder(task_id) if run is None else store.layout.run(task_id, int(run))
    root = (folder or store.layout.runs(task_id)) / "artifacts"
    path = root / name.rstrip("/")
    if not path.resolve().is_relative_to(root.resolve()) or not path.exists():
        files = sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())
        raise UserError(f"{key}: {row.label} ({task_id}) has no artifact {name}; it has: {', '.join(files) or 'none'}")
    return path
