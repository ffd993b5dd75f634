"""List what a run or a task made, with sizes and lines, and where it lies; --download copies it, checked by SHA-256.

A run also stands on tasks of earlier runs that it reused; they are listed with it.
"""

import argparse
import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from limbeck_engines.artifacts import ArtifactError, read_manifest
from limbeck_engines.store import Store, TaskRow
from limbeck_engines.task import DONE
from pipeline.common.errors import UserError
from pipeline.common.files import sha256
from utils.common import add_runs_argument, command_parser, did_you_mean, find_group, find_task, open_store, run_command

EXAMPLES = """examples:
  limbeck artifacts
  limbeck artifacts export-en-de
  limbeck artifacts VfLPTQDl --stage train-teacher-model
  limbeck artifacts VfLPTQDl --stage export --download my-model
  cp -r $(limbeck artifacts export-en-de --folder)/export my-model
"""
_CHUNK = 1 << 20
_BUILD = "public/build/"


@dataclass(frozen=True)
class Artifact:
    """One file that a task made. `lines` is None for what is not compressed text."""

    name: str  # below public/build, or whole when it lies elsewhere
    path: Path
    size: int  # bytes
    sha256: str
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
        print(_folder(store, rows[0]) / _BUILD.rstrip("/"))
        return 0
    for row in rows:
        print(f"{row.label} ({row.task_id})  {_folder(store, row) / _BUILD.rstrip('/')}")
        for artifact in artifacts_of(store, row):
            lines = "" if artifact.lines is None else f"  {artifact.lines:,} lines"
            print(f"  {artifact.size:>15,}  {artifact.name}{lines}", end="")
            print(f"  {_copy(artifact, options.download / row.label / artifact.name)}" if options.download else "")
    return 0


def _chosen(store: Store, name: str | None, stage: str | None) -> list[TaskRow]:
    """The finished tasks that the command line names."""
    groups = store.groups()
    is_group = name is None or any(group.group_id.startswith(name) for group in groups)
    if name is not None and (store.find_task(name) or not is_group):
        rows = [find_task(store, name, done=True)]
    else:
        rows = [row for row in store.run_tasks(find_group(store, name).group_id).values() if row.state in DONE]
    if stage is None:
        return rows
    kinds = {row.label: row.task().kind for row in rows}
    chosen = [row for row in rows if stage == kinds[row.label] or row.label.startswith(f"{stage}-")]
    if not chosen:
        raise UserError(f"no finished task of stage {stage} there{did_you_mean(stage, kinds.values())}")
    return chosen


def artifacts_of(store: Store, row: TaskRow) -> Iterator[Artifact]:
    """What a finished task made, by name. Raises UserError when it is not finished or its manifest is damaged."""
    folder = _folder(store, row)
    try:
        manifest = read_manifest(folder.parent)
    except ArtifactError as error:
        raise UserError(f"the artifacts of {row.label} ({row.task_id}) are damaged: {error}") from error
    for name, file in sorted(manifest["artifacts"].items()):
        yield Artifact(name.removeprefix(_BUILD), folder / name, file["size"], file["sha256"], file.get("lines"))


def _folder(store: Store, row: TaskRow) -> Path:
    """The folder of a finished task's artifacts."""
    run = store.run_folder(row.task_id)
    if row.state not in DONE or run is None:
        raise UserError(f"{row.label} ({row.task_id}) has no artifacts: it is {row.state}")
    return run / "artifacts"


def _copy(artifact: Artifact, target: Path) -> str:
    """Copy a file, whole or not at all; one that is there already stays. Returns what was done, in a word or two.

    Raises UserError when the artifact is not what its task made.
    """
    if target.is_file() and target.stat().st_size == artifact.size and sha256(target) == artifact.sha256:
        return "is there"
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    digest = hashlib.sha256()
    try:
        with artifact.path.open("rb") as source, temporary.open("wb") as copy:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                copy.write(chunk)
        if digest.hexdigest() != artifact.sha256:
            raise UserError(
                f"{artifact.path} is damaged (another SHA-256 than its manifest says): {target} is not made"
            )
        temporary.replace(target)
    except OSError as error:
        raise UserError(f"{artifact.path} cannot be copied: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return "copied"


if __name__ == "__main__":
    sys.exit(main())
