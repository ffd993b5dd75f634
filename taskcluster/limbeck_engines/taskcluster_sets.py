"""Sets of files that a Taskcluster task publishes as it runs, and finds again in a later run.

A set is named by a folder whose name ends in a number, such as `checkpoint-00000500`; a higher number is newer. To it
belongs what lies beside it and is no other set, such as the best model so far. Its files become
`public/checkpoint/<set>/<path>`; `public/checkpoint/<set>.json` names them with sizes and digests, and is written last:
a set without it was never finished.
"""

import datetime
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import requests

from limbeck_engines.taskcluster_client import Deployment, NotFoundError
from pipeline.common.download import RETRY_DELAYS, download, stream
from pipeline.common.errors import TransientError, UserError
from pipeline.common.files import sha256

logger = logging.getLogger(__name__)

PREFIX = "public/checkpoint"
_SET = re.compile(r"[A-Za-z][\w.]*-(\d+)")
_MANIFEST = re.compile(rf"{PREFIX}/({_SET.pattern})\.json")
_NAME = r"\w[\w.-]*"
_PATH = re.compile(rf"{_NAME}(?:/{_NAME})*", re.ASCII)
_LARGE = 1 << 24  # bytes
_TIMEOUT = (15.0, 300.0)  # seconds to connect, seconds without any progress
_MB = 1 << 20


def sets_in(folder: Path) -> list[Path]:
    """The sets of a folder, newest first."""
    found = [path for path in folder.iterdir() if _SET.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: _number(path.name), reverse=True)


def _number(name: str) -> int:
    return int(name.rpartition("-")[2])


@dataclass(frozen=True)
class Limits:
    """What publishing may take: bytes a second (0: all there is), and how long it is kept, in seconds."""

    rate: float = 0.0
    kept: float = 2 * 86400


class PublishedSets:
    """The sets of one task: those of its earlier runs to read, that of the current run to write."""

    def __init__(self, deployment: Deployment, task_id: str, run: int, limits: Limits = Limits()) -> None:
        self._deployment, self._task_id, self._run, self._limits = deployment, task_id, run, limits
        self._expiries: dict[str, str] = {}

    def restore(self, folder: Path) -> Path | None:
        """Bring the newest whole set of earlier runs into a folder; None when there is none.

        A set that is not whole is named in the log and passed over. Nothing is fetched when the folder itself has one
        that is as new. Raises TransientError or UserError when the artifacts cannot be listed, TransientError when a
        set cannot be fetched now, and OSError when it cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in (*folder.glob(".restoring-*"), *folder.glob(".publishing-*")):
            shutil.rmtree(left_over)
        newest_here = max((_number(path.name) for path in sets_in(folder)), default=-1)
        for name, run in sorted(self._published(), key=lambda found: (_number(found[0]), found[1]), reverse=True):
            if _number(name) <= newest_here:
                return None
            partial = folder / f".restoring-{name}"
            try:
                self._fetch(name, run, partial)
            except (UserError, ValueError, KeyError, TypeError) as error:
                shutil.rmtree(partial, ignore_errors=True)
                logger.warning(f"checkpoints: passing over {name} of run {run}, which is not whole: {error}")
                continue
            _move(partial, folder, name)
            logger.info(f"checkpoints: going on from {name}, which run {run} published")
            return folder / name
        return None

    def _published(self) -> Iterator[tuple[str, int]]:
        """Sets and the runs that published them; those without a manifest are named in the log."""
        queue = self._deployment.queue
        for run in range(self._run):
            params = {"taskId": self._task_id, "runId": str(run)}
            what = f"the artifacts of run {run} of {self._task_id}"
            try:
                names = [
                    str(entry["name"])
                    for entry in self._deployment.pages(what, queue.listArtifacts, "artifacts", params)
                    if entry["storageType"] != "error"
                ]
            except NotFoundError:
                continue  # a run that no worker ever took has none
            whole = {match[1] for name in names if (match := _MANIFEST.fullmatch(name))}
            begun = {name.split("/")[2] for name in names if name.startswith(f"{PREFIX}/") and name.count("/") > 2}
            for name in sorted(begun - whole):
                logger.warning(f"checkpoints: passing over {name} of run {run}, which was never finished")
            yield from ((name, run) for name in whole)

    def _fetch(self, name: str, run: int, target: Path) -> None:
        """Raises UserError on a file that is not what the manifest says."""
        url = self._deployment.artifact_url(self._task_id, run, f"{PREFIX}/{name}.json")
        manifest = json.loads(b"".join(stream(url)))
        target.mkdir()
        for file in manifest["files"]:
            if not _PATH.fullmatch(file["name"]):
                raise UserError(f"{file['name']!r} is no name of a file")
            path = target / file["name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            download(self._deployment.artifact_url(self._task_id, run, f"{PREFIX}/{name}/{file['name']}"), path)
            if path.stat().st_size != file["size"] or sha256(path) != file["sha256"]:
                raise UserError(f"{file['name']} is not what was published")
        if not (target / name).is_dir():
            raise UserError(f"it has no {name}")

    def publish(self, source: Path, stopped: Callable[[], bool] = lambda: False) -> None:
        """Publish a set. `stopped` is asked now and then whether to give up.

        Raises TransientError or UserError when it cannot be published, or was given up; it then has no manifest.
        """
        snapshot = source.with_name(f".publishing-{source.name}")
        shutil.rmtree(snapshot, ignore_errors=True)
        began = time.monotonic()
        try:
            paths = _take(source, snapshot)
            names = [path.relative_to(snapshot).as_posix() for path in paths]
            files = [
                {"name": name, "size": path.stat().st_size, "sha256": sha256(path)}
                for name, path in zip(names, paths, strict=True)
            ]
            for name, path in zip(names, paths, strict=True):
                with path.open("rb") as file:
                    self._put(f"{PREFIX}/{source.name}/{name}", file, path.stat().st_size, stopped)
            size = sum(path.stat().st_size for path in paths)
            manifest = snapshot / ".manifest.json"
            manifest.write_text(json.dumps({"set": source.name, "files": files}), encoding="utf-8")
            with manifest.open("rb") as file:
                self._put(f"{PREFIX}/{source.name}.json", file, manifest.stat().st_size, stopped)
        finally:
            shutil.rmtree(snapshot, ignore_errors=True)
        seconds = time.monotonic() - began
        logger.info(f"checkpoints: published {source.name}, {size / _MB:,.1f} MB in {seconds:.1f} s")

    def _put(self, name: str, file: BinaryIO, size: int, stopped: Callable[[], bool]) -> None:
        content_type = "application/json" if name.endswith(".json") else "application/octet-stream"
        request = {
            "storageType": "s3",
            "expires": self._expires(name.split("/")[2].removesuffix(".json")),
            "contentType": content_type,
            "contentLength": size,
        }
        for attempt, delay in enumerate((*RETRY_DELAYS, None)):
            answer = self._deployment.ask(
                f"the artifact {name}",
                self._deployment.queue.createArtifact,
                self._task_id,
                str(self._run),
                name,
                request,
            )
            file.seek(0)
            # An empty body of unknown kind would be sent in chunks, which S3 does not take.
            body = _Paced(file, size, self._limits.rate, stopped) if size else b""
            try:
                headers = {"Content-Type": content_type}
                response = requests.put(answer["putUrl"], data=body, headers=headers, timeout=_TIMEOUT)
            except requests.exceptions.RequestException as error:
                problem = f"the connection failed: {error}"
            else:
                if response.status_code < 300:
                    return
                problem = f"the storage answered {response.status_code} {response.reason}"
                if response.status_code < 500 and response.status_code not in (403, 408, 429):
                    raise UserError(f"{name} cannot be stored: {problem}")
            if delay is None:
                raise TransientError(f"{name} cannot be stored, in {attempt + 1} attempts: {problem}")
            time.sleep(delay)

    def _expires(self, name: str) -> str:
        """When a set may go: no later than its task, which the queue would refuse.

        The same for every attempt to publish it, as the queue refuses a second one that differs.
        """
        if name not in self._expiries:
            task = self._deployment.ask(f"the task {self._task_id}", self._deployment.queue.task, self._task_id)
            kept = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self._limits.kept)
            expires = min(kept, datetime.datetime.fromisoformat(task["expires"]))
            self._expiries[name] = expires.strftime("%Y-%m-%dT%H:%M:%S.000Z")
        return self._expiries[name]


def _take(source: Path, snapshot: Path) -> list[Path]:
    """Keep the files of a set as they are now, whatever the command does meanwhile; returns their paths there."""
    snapshot.mkdir()
    others = {path.name for path in sets_in(source.parent)} - {source.name}
    for path in sorted(source.parent.iterdir()):
        if path.name in others or not re.fullmatch(_NAME, path.name):
            continue
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            target = snapshot / file.relative_to(source.parent)
            if not file.is_file() or not _PATH.fullmatch(target.relative_to(snapshot).as_posix()):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            # A log goes on being written; what is large appears whole, and a copy would take time and room.
            (os.link if file.stat().st_size > _LARGE else shutil.copyfile)(file, target)
    return sorted(path for path in snapshot.rglob("*") if path.is_file())


def _move(partial: Path, folder: Path, name: str) -> None:
    """Move the files of a set into the folder, its own folder last: it appears when all is there."""
    for path in sorted(path for path in partial.rglob("*") if path.is_file()):
        inside = path.relative_to(partial)
        if inside.parts[0] != name:
            (folder / inside).parent.mkdir(parents=True, exist_ok=True)
            path.replace(folder / inside)
    (partial / name).rename(folder / name)
    shutil.rmtree(partial)


class _Paced:
    """A file as the body of a request, read no faster than `rate` bytes a second."""

    def __init__(self, file: BinaryIO, size: int, rate: float, stopped: Callable[[], bool]) -> None:
        self._file, self._size, self._rate, self._stopped = file, size, rate, stopped
        self._read, self._began = 0, time.monotonic()

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.read(_MB):
            yield chunk

    def read(self, size: Any = -1) -> bytes:
        if self._stopped():
            raise TransientError("publishing was given up")
        chunk = self._file.read(min(size, _MB) if size and size > 0 else _MB)
        self._read += len(chunk)
        if self._rate:
            ahead = self._read / self._rate - (time.monotonic() - self._began)
            if ahead > 0:
                time.sleep(min(ahead, 1.0))
        return chunk
