"""Fetching files over HTTP: streamed to disk, retried with back-off, and whole or not at all."""

import logging
import re
import time
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import requests
import zstandard

from pipeline.common.errors import TransientError, UserError
from pipeline.common.files import ZSTD_LEVEL
from pipeline.common.progress import Progress

# Seconds to wait before each further attempt.
RETRY_DELAYS = (1.0, 3.0, 9.0)
_LONGEST_WAIT = 60.0
_TIMEOUT = (15.0, 60.0)  # seconds to connect, seconds between two bytes
_CHUNK = 1 << 18
_MB = 1 << 20
_COMPRESSED = (b"\x28\xb5\x2f\xfd", b"\x1f\x8b")  # zstd, gzip
# Requests that may succeed later, beside the server's own errors.
_TRANSIENT_STATUS = frozenset({408, 425, 429})

logger = logging.getLogger(__name__)


class _Retry(Exception):
    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def download(url: str, path: Path, compress: bool = False, certificates: str | None = None) -> None:
    """Fetch a URL to a file. With `compress`, text that arrives uncompressed is stored as zstd.

    `certificates` is a bundle of trusted certificates (default: those of requests).
    Raises UserError when the server refuses it (404 …) and TransientError when it cannot be had now (503, a broken
    connection, a body shorter than announced) after several attempts.
    """
    _attempt(url, lambda response: _store(response, url, path, compress), {}, certificates)


def fetch_text(url: str, accept: str, certificates: str | None = None) -> tuple[str, str, str] | None:
    """A page's text, its content type and its address after redirects; None when there is none (404, 410).

    Raises as `download` does.
    """
    page: list[tuple[str, str, str]] = []

    def read(response: requests.Response) -> None:
        page[:] = [(response.text, response.headers.get("Content-Type", ""), response.url)]

    try:
        _attempt(url, read, {"Accept": accept}, certificates)
    except MissingError:
        return None
    return page[0]


def remote_size(url: str) -> int | None:
    """How many bytes a URL's file has, asked for without fetching it (HEAD); None when the server does not say.

    Raises as `download` does.
    """
    found: list[int | None] = []

    def read(response: requests.Response) -> None:
        announced = response.headers.get("Content-Length", "")
        found[:] = [int(announced) if announced.isdigit() else None]

    try:
        _attempt(url, read, {}, None, "HEAD")
    except _NoSuchMethod:
        _attempt(url, read, {}, None)  # the body is never read
    return found[0]


class MissingError(UserError):
    """There is nothing at the URL."""


class _NoSuchMethod(Exception):
    """The server knows the URL, but does not answer this method."""


def _attempt(url: str, use: Any, headers: dict[str, str], certificates: str | None, method: str = "GET") -> None:
    shown = without_credentials(url)
    for number, delay in enumerate((*RETRY_DELAYS, None)):
        try:
            _request(method, url, shown, use, headers, certificates)
            return
        except _Retry as error:
            if delay is None:
                raise TransientError(f"{shown} could not be fetched in {number + 1} attempts: {error}") from error
            wait = min(max(delay, error.wait), _LONGEST_WAIT)
            logger.info(f"{shown}: {error}; trying again in {wait:.0f} s")
            time.sleep(wait)


def _request(method: str, url: str, shown: str, use: Any, headers: dict[str, str], certificates: str | None) -> None:
    try:
        with requests.request(
            method,
            url,
            headers={"Accept-Encoding": "identity", **headers},
            stream=True,
            timeout=_TIMEOUT,
            verify=certificates,
            allow_redirects=True,
        ) as response:
            if method == "HEAD" and response.status_code in (403, 405, 501):
                raise _NoSuchMethod
            _check_status(response, shown)
            use(response)
    except requests.exceptions.SSLError as error:
        raise UserError(f"{shown}: the server's certificate is not trusted: {error}") from error
    except requests.exceptions.ContentDecodingError as error:
        raise _Retry(f"the body is damaged: {error}") from error
    except (
        requests.exceptions.MissingSchema,
        requests.exceptions.InvalidSchema,
        requests.exceptions.InvalidURL,
        requests.exceptions.TooManyRedirects,
    ) as error:
        raise UserError(f"{shown} is not a URL that can be fetched: {error}") from error
    except requests.exceptions.RequestException as error:
        raise _Retry(f"the connection failed: {error}") from error


def _check_status(response: requests.Response, shown: str) -> None:
    status = response.status_code
    if status < 300:
        return
    reason = f"the server answered {status} {response.reason or ''}".rstrip()
    if status >= 500 or status in _TRANSIENT_STATUS:
        after = response.headers.get("Retry-After", "")
        raise _Retry(reason, float(after) if after.isdigit() else 0.0)
    kind = MissingError if status in (404, 410) else UserError
    raise kind(f"{shown}: {reason}; the URL must name a file that can be fetched")


def _store(response: requests.Response, url: str, path: Path, compress: bool) -> None:
    announced = response.headers.get("Content-Length", "")
    size = int(announced) if announced.isdigit() else None
    progress = Progress(
        f"downloading {unquote(urlsplit(url).path.rpartition('/')[2])}",
        "MB",
        size // _MB if size and size >= _MB else None,
    )
    received = 0
    with path.open("wb") as file:
        target: Any = None
        for chunk in response.iter_content(_CHUNK):
            if target is None:
                target = _target(file, compress and not chunk.startswith(_COMPRESSED))
            target.write(chunk)
            progress.add((received + len(chunk)) // _MB - received // _MB)
            received += len(chunk)
        if target is not None and target is not file:
            target.close()
    arrived = response.raw.tell()  # as sent; urllib3 before 2 ends a short body without a word
    if size is not None and arrived != size:
        raise _Retry(f"the body is cut short: {arrived:,} of {size:,} bytes came")
    progress.finish()


def _target(file: IO[bytes], compress: bool) -> Any:
    if not compress:
        return file
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL).stream_writer(file, closefd=False)


def without_credentials(url: str) -> str:
    """The URL as it may be shown."""
    return re.sub(r"(?<=://)[^/@]*@", "", url)
