"""List what a run or a task made, with sizes and lines, and where it lies; --download copies it, checked by SHA-256.

A run also stands on tasks of earlier runs that it reused; they are listed with it.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from limbeck_engines.artifacts import ArtifactError, read_manifest
from limbeck_engines.base import Engine
from limbeck_engines.store import Store, TaskRow
from limbeck_engines.task import DONE
from limbeck_engines.taskcluster_client import root_of
from pipeline.common.download import download
from pipeline.common.errors import UserError
from pipeline.common.files import sha256
from utils.common import (
    add_runs_argument,
    command_parser,
    did_you_mean,
    find_group,
    find_task,
    open_engine,
    open_store,
    run_command,
)
from utils.places import Place, folder_of, told_sha256

EXAMPLES = """examples:
  limbeck artifacts
  limbeck artifacts export-en-de
  limbeck artifacts VfLPTQDl --stage train-teacher-model
  limbeck artifacts VfLPTQDl --stage export --download my-model
  cp -r $(limbeck artifacts export-en-de --folder)/export my-model
"""
_BUILD = "public/build/"


@dataclass(frozen=True)
class Artifact:
    """One file that a task made. `lines` is None for what is not compressed text."""

    name: str  # below public/build, or whole when it lies elsewhere
    place: Place
    size: int | None  # bytes; None when the deployment that has it does not say
    sha256: str | None  # None when its worker told none
    lines: int | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and list or copy the files."""
    parser = command_parser("artifacts", __doc__, EXAMPLES)
    parser.add_argument(
        "name",
        nargs="?",
        metavar="RUN|TASK",
        help="id of a run, or its beginning (default: the newest); label or id of a task",
    )
    parser.add_argument("--stage", help="only the tasks of this stage")
    parser.add_argument("--download", type=Path, metavar="DIR", help="copy the files to DIR/LABEL/")
    parser.add_argument("--folder", action="store_true", help="print the folder of a task only")
    add_runs_argument(parser)
    options = parser.parse_args(arguments)
    return run_command(lambda: _artifacts(options))


def _artifacts(options: argparse.Namespace) -> int:
    store = open_store(options.runs)
    if store is None:
        raise UserError(f"nothing has run in {options.runs} yet")
    rows = _chosen(store, options.name, options.stage)
    if options.folder:
        if len(rows) != 1:
            raise UserError(f"--folder is for one task, and {len(rows)} are named: give a task's label or id")
        print(_folder(store, rows[0]))
        return 0
    for row in rows:
        print(f"{row.label} ({row.task_id})  {_folder(store, row)}")
        for artifact in artifacts_of(store, row):
            lines = "" if artifact.lines is None else f"  {artifact.lines:,} lines"
            size = "?" if artifact.size is None else f"{artifact.size:,}"
            print(f"  {size:>15}  {artifact.name}{lines}", end="", flush=True)
            print(f"  {_copy(artifact, options.download / row.label / artifact.name)}" if options.download else "")
    return 0


def _chosen(store: Store, name: str | None, stage: str | None) -> list[TaskRow]:
    """The finished tasks that the command line names."""
    groups = [group.group_id for group in store.groups()]
    is_task = name is not None and name not in groups and store.find_task(name) is not None
    if name is not None and (is_task or not any(group_id.startswith(name) for group_id in groups)):
        rows = [find_task(store, name, done=True)]
    else:
        group = find_group(store, name)
        if group.url:
            open_engine(store, group).status(group.group_id)  # brings the record up to date
        rows = [row for row in store.run_tasks(group.group_id).values() if row.state in DONE]
    if stage is None:
        return rows
    kinds = {row.label: row.task().kind for row in rows}
    chosen = [row for row in rows if stage == kinds[row.label] or row.label.startswith(f"{stage}-")]
    if not chosen:
        raise UserError(f"no finished task of stage {stage} there{did_you_mean(stage, kinds.values())}")
    return chosen


def artifacts_of(store: Store, row: TaskRow) -> Iterator[Artifact]:
    """What a finished task made, by name. Raises UserError when it is not finished or its manifest is damaged."""
    group = store.group(row.group_id)
    if group.url:
        yield from _artifacts_elsewhere(open_engine(store, group), row.task_id)
        return
    folder = _run_folder(store, row)
    try:
        manifest = read_manifest(folder)
    except ArtifactError as error:
        raise UserError(f"the artifacts of {row.label} ({row.task_id}) are damaged: {error}") from error
    for name, file in sorted(manifest["artifacts"].items()):
        place = folder / "artifacts" / name
        yield Artifact(name.removeprefix(_BUILD), place, file["size"], file["sha256"], file.get("lines"))


def _artifacts_elsewhere(engine: Engine, task_id: str) -> Iterator[Artifact]:
    sizes = engine.artifact_sizes(task_id)
    for name, place in sorted(engine.artifacts(task_id).items()):
        yield Artifact(name.removeprefix(_BUILD), place, sizes.get(name), None, None)


def _folder(store: Store, row: TaskRow) -> Place:
    """The folder, or URL, of a finished task's `public/build/…` artifacts."""
    group = store.group(row.group_id)
    if group.url:
        return folder_of(open_engine(store, group), row.task_id) or f"{root_of(group.url)}/tasks/{row.task_id}"
    return _run_folder(store, row) / "artifacts" / _BUILD.rstrip("/")


def _run_folder(store: Store, row: TaskRow) -> Path:
    run = store.run_folder(row.task_id)
    if row.state not in DONE or run is None:
        raise UserError(f"{row.label} ({row.task_id}) has no artifacts: it is {row.state}")
    return run


def _copy(artifact: Artifact, target: Path) -> str:
    """Copy a file, whole or not at all; one that is there already stays. Returns what was done, in a word or two.

    Raises UserError when the artifact is not what its task made.
    """
    place, expected = artifact.place, artifact.sha256
    if isinstance(place, str):
        expected = told_sha256(place)
    if target.is_file() and target.stat().st_size == artifact.size and sha256(target) == expected:
        return "is there"
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        if isinstance(place, str):
            download(place, temporary)
        else:
            shutil.copyfile(place, temporary)
        found = sha256(temporary)
        if expected is not None and found != expected:
            raise UserError(f"{place} is damaged (its SHA-256 is {found}, not {expected}): {target} is not made")
        temporary.replace(target)
    except OSError as error:
        raise UserError(f"{place} cannot be copied: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return "copied" if expected is not None else "copied, unchecked (no SHA-256 is known)"


if __name__ == "__main__":
    sys.exit(main())
