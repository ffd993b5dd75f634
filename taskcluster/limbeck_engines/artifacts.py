"""Files of tasks: where they lie, how a task's inputs are laid out and how its outputs appear.

The layout is Taskcluster's: `task/<taskId>/runs/<n>/artifacts/public/build/…`, beside `live.log` and `manifest.json`.
A run is complete exactly when its `artifacts` folder exists: it gets that name when all is in it.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.common.errors import UserError
from pipeline.common.files import count_lines, sha256


class ArtifactError(Exception):
    """A task's inputs or outputs are not as its definition says. The message is one sentence."""


@dataclass(frozen=True)
class Layout:
    """Paths inside a runs folder."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "limbeck.sqlite"

    def lock(self, name: str) -> Path:
        return self.root / "locks" / f"{name}.lock"

    def checkpoints(self, digest: str) -> Path:
        """Where a task keeps what lets it go on after it was stopped; the same for every run of a digest."""
        return self.root / "checkpoints" / digest

    def runs(self, task_id: str) -> Path:
        return self.root / "task" / task_id / "runs"

    def run(self, task_id: str, number: int) -> Path:
        return self.runs(task_id) / str(number)

    def newest_run(self, task_id: str) -> int | None:
        """The highest run number on disk."""
        try:
            return max(int(entry.name) for entry in os.scandir(self.runs(task_id)) if entry.name.isdigit())
        except (FileNotFoundError, ValueError):
            return None


def is_complete(run: Path) -> bool:
    return (run / "artifacts").is_dir()


@dataclass(frozen=True)
class Link:
    """One input: a file or folder, and the name that the task finds it under."""

    source: Path
    target: Path


def plan_inputs(fetches: str, folder: Path, artifacts_of: Callable[[str], tuple[str, Path] | None]) -> Iterator[Link]:
    """Where each input of `MOZ_FETCHES` (JSON) comes from and goes to.

    `artifacts_of` gives a task's label and artifacts folder. Raises ArtifactError on an input that is not there.
    """
    targets = set()
    for fetch in json.loads(fetches):
        name, dest = str(fetch["artifact"]), str(fetch.get("dest") or "")
        if not (_is_inside(name) and _is_inside(dest)):
            raise ArtifactError(f"the input {name} (to {dest or '.'}) has a path that leads out of its folder")
        if fetch.get("extract"):
            raise ArtifactError(f"the input {name} asks to be extracted, which is for archives: set extract to false")
        maker = artifacts_of(fetch["task"])
        if maker is None:
            raise ArtifactError(f"the input {name} is missing: there is no task {fetch['task']} to take it from")
        label, artifacts = maker
        source, target = artifacts / name, folder / dest / PurePosixPath(name).name
        if not (source.is_dir() if name.endswith("/") else source.is_file()):
            raise ArtifactError(f"the input {name} of {label} is missing: {source} does not exist")
        if target in targets:
            raise ArtifactError(f"two inputs have the same name, {target.relative_to(folder)}: give them a dest each")
        targets.add(target)
        yield Link(source, target)


def _is_inside(path: str) -> bool:
    return not path.startswith("/") and ".." not in PurePosixPath(path).parts


def link_inputs(links: list[Link]) -> None:
    """Make the inputs appear, without copying any: as hard links, or symbolic ones across file systems."""
    for link in links:
        link.target.parent.mkdir(parents=True, exist_ok=True)
        if not link.source.is_dir():
            _link(link.source, link.target)
            continue
        for folder, _, files in os.walk(link.source):
            target = link.target / Path(folder).relative_to(link.source)
            target.mkdir(exist_ok=True)
            for file in files:
                _link(Path(folder, file), target / file)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        target.symlink_to(source)


def publish(run: Path, outputs: list[dict[str, Any]], description: dict[str, Any], work: Path | None = None) -> None:
    """Turn what a finished task left in its folder (`work`, by default `run`/work) into its artifacts, by one rename.

    `outputs` is `payload.artifacts`; `description` goes into the manifest beside what `_describe` says of every file.
    Files become read-only, since the inputs of other tasks are links to them, and their content is on disk before the
    rename. What a power cut may still take back are the newest names; `find_damage` sees that.
    Raises ArtifactError on an output that is missing, that is neither a file nor a folder, or on damaged text.
    """
    work, partial = work or run / "work", run / "artifacts.partial"
    partial.mkdir()
    for output in outputs:
        source, target = work / output["path"], partial / output["name"]
        if not (source.is_dir() if output.get("type") == "directory" else source.is_file()):
            if output.get("optional"):
                continue
            raise ArtifactError(f"the task ended well but left no {output['path']}, which it was to make")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source, target)
    files = {}
    for path in sorted(partial.rglob("*")):
        name = path.relative_to(partial).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ArtifactError(f"the artifact {name} is a link or a special file: write the file itself")
        if path.is_file():
            files[name] = _describe(path, name)
    manifest = run / "manifest.json"
    with manifest.open("w", encoding="utf-8") as file:
        json.dump({**description, "artifacts": files}, file, indent=2, ensure_ascii=False, sort_keys=True)
    partial.rename(run / "artifacts")


def _describe(path: Path, name: str) -> dict[str, Any]:
    """Make a file read-only; its SHA-256, size, time of change (ns) and, of compressed text, number of lines."""
    path.chmod(path.stat().st_mode & ~0o222)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    status = path.stat()
    described = {"sha256": sha256(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    if path.suffix == ".zst":
        try:
            described["lines"] = count_lines(path)
        except UserError as error:
            raise ArtifactError(f"the artifact {name} is damaged: {error}") from error
    return described


def read_manifest(run: Path) -> dict[str, Any]:
    """What a run's manifest says: its task, label, digest and, by name, its `artifacts` (see `_describe`).

    Raises ArtifactError when there is none, or when it is none.
    """
    path = run / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        manifest["artifacts"].items()
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} does not exist") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is not a manifest") from error
    return manifest


def find_damage(run: Path, verify: bool = False) -> str | None:
    """What differs between a run's artifacts and its manifest, as one sentence; None when nothing does.

    A file that has the size and the time of change that it was published with is taken to be whole; any other of the
    right size is hashed, and gets its time back when its content is right. With `verify` every file is hashed, which
    also finds what a disk has changed by itself.
    """
    try:
        files = read_manifest(run)["artifacts"]
    except ArtifactError as error:
        return str(error)
    if not is_complete(run):
        return f"{run / 'artifacts'} does not exist"
    for name, expected in files.items():
        path = run / "artifacts" / name
        try:
            status = path.stat()
        except OSError:
            return f"{path} does not exist"
        if status.st_size != expected["size"]:
            return f"{path} has {status.st_size:,} bytes instead of {expected['size']:,}"
        published = expected.get("mtime_ns")
        if verify or status.st_mtime_ns != published:
            if sha256(path) != expected["sha256"]:
                return f"{path} has another SHA-256 than its manifest says"
            if published is not None:
                # Another person's file keeps its time, and is hashed again next time.
                with contextlib.suppress(OSError):
                    os.utime(path, ns=(status.st_atime_ns, published))
    return None
