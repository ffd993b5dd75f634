"""The logs of Taskcluster tasks: streamed while they are written, or their end, for what went wrong."""

import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import requests
import urllib3

from limbeck_engines.logs import failure_reason
from limbeck_engines.taskcluster_client import Deployment
from pipeline.common.download import MissingError, stream
from pipeline.common.errors import TransientError, UserError

_NAMES = ("public/logs/live.log", "public/logs/live_backing.log")
_QUIET = 5.0  # seconds without a byte after which a log that is still being written is taken to have been read
_FAILURES = 5  # in a row
_LONGEST_SILENCE = 300.0  # seconds until the connection of a followed log is taken to be dead
_TAIL = _PIECE = 1 << 16
# What a worker says itself, and what run-task puts before a task's own lines.
_OF_WORKER = re.compile(r"^\[(?:taskcluster|setup|vcs|fetches)\b")
_MARK = re.compile(r"^\[task \S+\] ?")
_EXIT_CODE = re.compile(r"(?:exit code|Exit Code)[:=]? ?(\d+)", re.IGNORECASE)


def log_lines(
    deployment: Deployment, task_id: str, run: int, is_running: Callable[[], bool], follow: bool
) -> Iterator[str]:
    """The log of a run, line by line; with `follow` until the run ends, across broken connections.

    Raises UserError when there is no log.
    """
    received, rest, failures = 0, b"", 0
    while True:
        running = is_running()
        try:
            for chunk in _read(deployment, task_id, run, received, _LONGEST_SILENCE if follow else _QUIET):
                received += len(chunk)
                failures = 0
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line.decode("utf-8", "replace") + "\n" for line in lines)
        except TransientError:
            failures += 1
            if not follow or failures > _FAILURES:
                raise
        # Asked before the rest was read: what a task writes last is not missed.
        if not (follow and running):
            break
        time.sleep(1.0)
    if rest:
        yield rest.decode("utf-8", "replace") + "\n"


def _read(deployment: Deployment, task_id: str, run: int, received: int, silence: float) -> Iterator[bytes]:
    """The bytes of a log after those that were received already, until it ends, or for a while says nothing."""
    skip = received
    try:
        with _open(deployment, task_id, run, silence) as response:
            # What has arrived, however little: requests' own iteration waits for whole pieces.
            while chunk := response.raw.read1(_PIECE, decode_content=True):
                if skip < len(chunk):
                    yield chunk[skip:]
                skip = max(0, skip - len(chunk))
    except urllib3.exceptions.HTTPError:
        return  # silent, or broken off: whoever follows comes back


def _open(deployment: Deployment, task_id: str, run: int, silence: float) -> requests.Response:
    status, problem = 404, ""
    for name in _NAMES:
        url = deployment.artifact_url(task_id, run, name)
        try:
            response = requests.get(url, stream=True, timeout=(15.0, silence))
        except requests.exceptions.RequestException as error:
            problem = str(error)
            continue
        if response.status_code < 300:
            return response
        status = response.status_code
        response.close()
        if status not in (403, 404, 424):
            break
    if problem or status >= 500:
        raise TransientError(f"the log of run {run} of {task_id} cannot be read now: {problem or status}")
    raise UserError(f"run {run} of {task_id} has no log (yet): {deployment.task_page(task_id)} shows what there is")


def reason_of_failure(deployment: Deployment, task_id: str, run: int) -> str | None:
    """Why a task failed, in one line, from the end of its log; None when it cannot be read."""
    for name in reversed(_NAMES):
        tail = b""
        try:
            for chunk in stream(deployment.artifact_url(task_id, run, name)):
                tail = (tail + chunk)[-_TAIL:]
        except MissingError:
            continue
        except (UserError, TransientError):
            return None
        return _reason(tail.decode("utf-8", "replace"))
    return None


def _reason(text: str) -> str:
    lines = text.splitlines()
    codes = [int(found[1]) for line in lines if _OF_WORKER.match(line) and (found := _EXIT_CODE.search(line))]
    own = [_MARK.sub("", line) for line in lines if not _OF_WORKER.match(line)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "live.log")
        path.write_text("\n".join(own), encoding="utf-8")
        return failure_reason(path, codes[-1] if codes else 1)
