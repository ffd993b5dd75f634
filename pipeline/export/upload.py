"""Publish folders and files: to S3, Google's storage, a folder, or any other storage that fsspec knows.

A folder's files come under its name, with a SHA256SUMS that `sha256sum --check` reads; of a single file there is a
NAME.sha256. Both are written last: what they name is whole. What is there already with the same content is not sent
again, so that an interrupted upload goes on where it was; what is there with another content is never overwritten
without --overwrite, and before anything is sent all such files are named. Credentials come from the environment, as the
storage's driver documents.
"""

import argparse
import logging
import re
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pipeline.common.command import run_command
from pipeline.common.download import MissingError
from pipeline.common.errors import UserError
from pipeline.common.files import write_json
from pipeline.common.progress import Progress
from pipeline.common.storage import Digests, Folder, digests

logger = logging.getLogger(__name__)

EXAMPLE = """example:
  AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… python -m pipeline.export.upload --url s3://bucket/models/en-de \\
    --artifact export export --artifact browser browser --artifact report.html report.html --output-dir uploaded
"""

CONNECTIONS = 4
SUMS = "SHA256SUMS"
_NAMED = 5  # files that an error names, at most
_KB = 1000
_SUMS_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_UNFIT = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class File:
    """A file to publish: its artifact, its name in that ("" of an artifact of one file), where it is, its content."""

    artifact: str
    within: str
    path: Path
    content: Digests

    @property
    def name(self) -> str:
        """Its name below the URL."""
        return f"{self.artifact}/{self.within}" if self.within else self.artifact


class _Interrupted(Exception):
    """The upload is over, but a file is still being sent."""


def upload(
    artifacts: Sequence[tuple[str, Path]], url: str, overwrite: bool = False, connections: int = CONNECTIONS
) -> dict[str, Any]:
    """Publish folders and files under their names, and return what upload.json says of it.

    {"url", "bytes", "sent-bytes", "artifacts": [their names], "files": [{"name", "bytes", "sha256", "sent"}]}

    Raises UserError for names that cannot be, sources that are not there, content that would be overwritten, and
    whatever the storage refuses; TransientError when the storage cannot be reached now.
    """
    target = Folder(url)
    files = read_files(find_files(artifacts), connections)
    missing, different = compare(files, target, connections)
    if different and not overwrite:
        raise UserError(_conflict(different, target))
    sums = {name: _merged_sums(name, files, target, overwrite) for name, _ in artifacts}
    to_send = [*missing, *different]
    known = len(files) - len(to_send)
    logger.info(f"{len(to_send):,} of {len(files):,} files to send to {target.shown}; {known:,} are there already")
    if to_send:
        send(to_send, target, {file.name for file in different}, connections)
    for place, text in sums.values():
        _write_sums(place, text, target)
    sent = {file.name for file in to_send}
    return {
        "url": target.shown,
        "bytes": sum(file.content.size for file in files),
        "sent-bytes": sum(file.content.size for file in to_send),
        "artifacts": [name for name, _ in artifacts],
        "files": [
            {
                "name": file.name,
                "bytes": file.content.size,
                "sha256": file.content.sha256,
                "sent": file.name in sent,
            }
            for file in files
        ],
    }


# What is to be published


def find_files(artifacts: Sequence[tuple[str, Path]]) -> list[tuple[str, str, Path]]:
    """Artifact, name in it and path of every file. Raises UserError for what cannot be published."""
    found: list[tuple[str, str, Path]] = []
    if twice := _first_twice(name for name, _ in artifacts):
        raise UserError(f"--artifact names {twice} twice: every artifact needs a name of its own")
    for name, path in artifacts:
        if path.is_file():
            found.append((name, "", path))
            continue
        if not path.is_dir():
            raise UserError(f"--artifact {name}: {path} does not exist")
        inside = sorted(file for file in path.rglob("*") if file.is_file() and file != path / SUMS)
        if not inside:
            raise UserError(f"--artifact {name}: the folder {path} has no files")
        found += [(name, file.relative_to(path).as_posix(), file) for file in inside]
    names = [f"{artifact}/{within}" if within else artifact for artifact, within, _ in found]
    for name in names:
        _check_name(name)
    sums = {_sums_place(artifact, not within) for artifact, within, _ in found}
    if twice := _first_twice([*names, *sums]):
        raise UserError(f"two files would be published as {twice}: give the artifacts other names")
    return found


def _first_twice(names: Iterable[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _check_name(name: str) -> None:
    parts = name.split("/")
    if not name or any(part in ("", ".", "..") for part in parts):
        raise UserError(f"the name {name!r} cannot be published: it must be like export or models/en-de, below the URL")
    if _UNFIT.search(name):
        raise UserError(
            f"the name {name!r} cannot be published: it has a control character, a backslash or no Unicode in it"
        )


def read_files(found: Sequence[tuple[str, str, Path]], connections: int) -> list[File]:
    """The files with their digests."""
    progress = _Counter("reading", sum(path.stat().st_size for _, _, path in found))
    read = _in_parallel(lambda row: File(*row, digests(row[2], progress.add)), found, connections)
    progress.finish()
    return sorted(read, key=lambda file: file.name)


# What is there already


def compare(files: Sequence[File], target: Folder, connections: int) -> tuple[list[File], list[File]]:
    """The files that are not there, and those that are there with another content."""
    answers = dict(_in_parallel(lambda file: (file.name, target.same(file.name, file.content)), files, connections))
    missing = [file for file in files if answers[file.name] is None]
    return missing, [file for file in files if answers[file.name] is False]


def _conflict(different: Sequence[File], target: Folder) -> str:
    named = ", ".join(file.name for file in different[:_NAMED])
    more = f" and {len(different) - _NAMED} more" if len(different) > _NAMED else ""
    return (
        f"{target.shown} has {named}{more} with another content, and nothing was sent: publish under another URL or "
        "name, or replace them with --overwrite"
    )


# Sending


def send(files: Sequence[File], target: Folder, replaced: set[str], connections: int) -> None:
    """Send the files; those of `replaced` take the place of others. Raises as `upload` does."""
    progress = _Counter("uploading", sum(file.content.size for file in files))
    stopped = threading.Event()

    def count(size: int) -> None:
        if stopped.is_set():
            raise _Interrupted
        progress.add(size)

    def put(file: File) -> None:
        try:
            target.put(file.path, file.name, file.name in replaced, count)
        except FileExistsError:  # somebody else was there in the meantime
            if not target.same(file.name, file.content):
                raise UserError(_conflict([file], target)) from None
        if not target.same(file.name, file.content, read_back=False):
            raise UserError(f"{target.uri(file.name)} is not what was read of {file.path}: did it change meanwhile?")

    _in_parallel(put, files, connections, stopped)
    progress.finish()


# Checksums


def _sums_place(artifact: str, is_file: bool) -> str:
    return f"{artifact}.sha256" if is_file else f"{artifact}/{SUMS}"


def _merged_sums(artifact: str, files: Sequence[File], target: Folder, overwrite: bool) -> tuple[str, str]:
    """Where an artifact's checksums go, and their text: with those of other files that were published there before.

    Raises UserError when there is something else in that place, which is not to be overwritten.
    """
    own = [file for file in files if file.artifact == artifact]
    place = _sums_place(artifact, is_file=not own[0].within)
    lines = {file.within or PurePosixPath(artifact).name: file.content.sha256 for file in own}
    try:
        there = target.read(place).decode("utf-8", "replace").splitlines()
    except MissingError:
        there = []
    matched = [_SUMS_LINE.fullmatch(line) for line in there]
    if None in matched and not overwrite:
        raise UserError(f"{target.uri(place)} is no list of checksums: move it away, or replace it with --overwrite")
    before = {match[2]: match[1] for match in matched if match}
    return place, "".join(f"{digest}  {name}\n" for name, digest in sorted({**before, **lines}.items()))


def _write_sums(place: str, text: str, target: Folder) -> None:
    with tempfile.TemporaryDirectory(prefix="upload-") as folder:
        path = Path(folder) / "sums"
        path.write_text(text, encoding="utf-8")
        if not target.same(place, digests(path)):
            target.put(path, place, replace=True)


# Several at once


class _Counter:
    """Progress in kilobytes, which several threads count."""

    def __init__(self, doing: str, size: int) -> None:
        self._progress, self._lock, self._bytes = Progress(doing, "kB", size // _KB or None), threading.Lock(), 0

    def add(self, size: int) -> None:
        with self._lock:
            before, self._bytes = self._bytes, self._bytes + size
            self._progress.add(self._bytes // _KB - before // _KB)

    def finish(self) -> None:
        self._progress.finish()


def _in_parallel(
    work: Callable[[Item], Result], items: Iterable[Item], connections: int, stopped: threading.Event | None = None
) -> list[Result]:
    """The results, in no order. After the first failure nothing new is begun, and `stopped` tells what has begun."""
    with ThreadPoolExecutor(connections) as threads:
        running = [threads.submit(work, item) for item in items]
        try:
            return [future.result() for future in as_completed(running)]
        except BaseException:
            if stopped:
                stopped.set()
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--url", required=True, help="where to publish: s3://bucket/folder, gs://…, file:///… or a path"
    )
    parser.add_argument(
        "--artifact",
        action="append",
        nargs=2,
        required=True,
        metavar=("NAME", "PATH"),
        help="a folder or file, and its name below the URL; repeatable",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that have another content there")
    parser.add_argument(
        "--connections", type=int, default=CONNECTIONS, help="files that are sent at once (default: %(default)s)"
    )
    parser.add_argument("--output-dir", type=Path, required=True, help="folder for upload.json")
    args = parser.parse_args(arguments)
    if args.connections < 1:
        raise UserError(f"--connections must be at least 1, found {args.connections}")
    artifacts = [(name, Path(path)) for name, path in args.artifact]
    result = upload(artifacts, args.url, args.overwrite, args.connections)
    write_json(args.output_dir / "upload.json", result)
    logger.info(
        f"published {len(result['files']):,} files, {result['bytes'] / 1e6:,.1f} MB, at {result['url']}: "
        f"{result['sent-bytes'] / 1e6:,.1f} MB were sent"
    )


if __name__ == "__main__":
    run_command(main)
