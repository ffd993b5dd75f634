"""What the engines share that keep logs and artifacts in the runs folder, on this machine or a shared file system."""

import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from limbeck_engines.artifacts import ArtifactError, read_manifest
from limbeck_engines.base import Engine
from limbeck_engines.schedule import path_lengths
from limbeck_engines.store import TaskRow
from limbeck_engines.task import DONE, PENDING, RUNNING, Task
from pipeline.common.errors import UserError

_LOOK_AGAIN = 0.5  # seconds between two looks at a log that is followed


class RunsFolderEngine(Engine):
    """An engine whose tasks' logs and artifacts lie in `task/<taskId>/runs/<n>/` of the runs folder."""

    def check_tasks(self, group_id: str, tasks: list[Task]) -> None:
        """Raise UserError on tasks that could never run."""
        _check_id("group", group_id)
        known = {task.task_id for task in tasks}
        labels = Counter(task.label for task in tasks)
        for task in tasks:
            _check_task(task)
            if labels[task.label] > 1:
                raise UserError(f"{labels[task.label]} tasks of group {group_id} have the label {task.label}")
            for dependency in task.dependencies:
                if dependency not in known and self.store.find_task(dependency) is None:
                    raise UserError(f"{task.label} depends on the task {dependency}, which was never submitted")
        path_lengths(tasks)

    def log_path(self, task_id: str) -> Path:
        row = self._resolve(task_id)
        if row.run is None:
            raise UserError(f"{row.label} ({task_id}) has no log: it has not started yet")
        return self.store.layout.run(row.task_id, row.run) / "live.log"

    def log_lines(self, task_id: str, follow: bool = False) -> Iterator[str]:
        path: Path | None = self.log_path(task_id)
        while path is not None:
            with path.open("rb") as log:
                while True:
                    # Asked before the rest is read: what a task writes last is not missed.
                    going_on = follow and self._goes_on(task_id)
                    later = self._later_log(task_id, path)
                    while line := log.readline():
                        if going_on and later is None and not line.endswith(b"\n"):
                            log.seek(-len(line), os.SEEK_CUR)
                            break
                        yield line.decode("utf-8", errors="replace")
                    if later is not None or not going_on:
                        break
                    time.sleep(_LOOK_AGAIN)
            path = later if follow else None

    def _later_log(self, task_id: str, path: Path) -> Path | None:
        """The log of a run that began after the one with this log, if any has."""
        newest = self.log_path(task_id)
        return None if newest == path or not newest.exists() else newest

    def _goes_on(self, task_id: str) -> bool:
        """Whether a task may still write into its log."""
        return self._state(self.store.task(task_id).group_id, task_id) in (PENDING, RUNNING)

    def _state(self, group_id: str, task_id: str) -> str:
        return next(row.state for row in self.status(group_id).tasks if row.task_id == task_id)

    def artifacts(self, task_id: str) -> dict[str, Path]:
        """The artifacts of a completed task by name. Raises UserError when it is not completed."""
        row = self._resolve(task_id)
        if row.state not in DONE or row.run is None:
            raise UserError(f"{row.label} ({task_id}) has no artifacts: it is {row.state}")
        run = self.store.layout.run(row.task_id, row.run)
        try:
            manifest = read_manifest(run)
        except ArtifactError as error:
            raise UserError(f"the artifacts of {row.label} ({task_id}) are damaged: {error}") from error
        return {name: run / "artifacts" / name for name in manifest["artifacts"]}

    def artifact_path(self, task_id: str, name: str) -> Path:
        artifacts = self.artifacts(task_id)
        if name not in artifacts:
            names = ", ".join(artifacts) or "none"
            raise UserError(f"{self._resolve(task_id).label} ({task_id}) has no artifact {name}; it has: {names}")
        return artifacts[name]

    def _resolve(self, task_id: str) -> TaskRow:
        row = self.store.resolve(task_id)
        if row is None:
            raise UserError(f"there is no task {task_id} in {self.store.layout.root}")
        return row


def _check_id(what: str, name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UserError(f"{name!r} cannot be the id of a {what}: letters, digits, - and _ only")


def _check_task(task: Task) -> None:
    """Raise UserError unless the parts of a definition that this engine reads are well formed."""
    _check_id("task", task.task_id)
    if not re.fullmatch(r"[0-9a-f]{8,}", task.digest):
        raise UserError(f"{task.label}: its digest is {task.digest!r}, not a hexadecimal number")
    for command in task.commands:
        if not (isinstance(command, list) and command and all(isinstance(word, str) for word in command)):
            raise UserError(f"{task.label}: payload.command must be a list of commands, each a list of texts")
    for output in task.payload.get("artifacts", []):
        inside = all(
            isinstance(output.get(key), str) and not output[key].startswith("/") and ".." not in output[key].split("/")
            for key in ("path", "name")
        )
        if output.get("type") not in ("file", "directory") or not inside:
            raise UserError(f"{task.label}: an artifact needs type file or directory, a path and a name: {output}")
    try:
        fetches = json.loads(task.payload.get("env", {}).get("MOZ_FETCHES", "[]"))
        complete = all({"artifact", "task"} <= fetch.keys() for fetch in fetches)
    except (ValueError, TypeError, AttributeError):
        complete = False
    if not complete:
        raise UserError(f"{task.label}: MOZ_FETCHES must be a JSON list of mappings with artifact and task")
