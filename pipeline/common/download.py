"""Fetching files over HTTP: streamed, retried with back-off, continued where they broke off, whole or not at all."""

import contextlib
import logging
import re
import time
from collections.abc import Callable, Iterator
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


class _CannotContinue(_Retry):
    """The rest of a body that broke off cannot be had: it must be fetched from its beginning."""


def download(url: str, path: Path, compress: bool = False, certificates: str | None = None) -> None:
    """Fetch a URL to a file. With `compress`, text that arrives uncompressed is stored as zstd.

    A body that breaks off is continued where the server can do that. `certificates` is a bundle of trusted certificates
    (default: those of requests).
    Raises UserError when the server refuses it (404 …) and TransientError when it cannot be had now (503, a broken
    connection, a body shorter than announced) after several attempts.
    """
    body = _Body(url)
    progress = Progress(f"downloading {unquote(urlsplit(url).path.rpartition('/')[2])}", "MB")
    with path.open("wb") as file:
        target: Any = None
        for offset, chunk in body.read(certificates):
            if offset == 0:  # the first bytes, or the first again
                file.seek(0)
                file.truncate()
                target = _target(file, compress and not chunk.startswith(_COMPRESSED))
                progress.done = 0
            target.write(chunk)
            progress.total = body.size // _MB if body.size and body.size >= _MB else None
            progress.add((offset + len(chunk)) // _MB - offset // _MB)
        if target is not file:
            target.close()
    progress.finish()


def stream(url: str, certificates: str | None = None) -> Iterator[bytes]:
    """The bytes of a URL as they arrive, nothing stored; a body that breaks off is continued.

    Raises as `download` does, and TransientError when a body that broke off cannot be continued.
    """
    received = 0
    for offset, chunk in _Body(url).read(certificates):
        if offset != received:
            raise TransientError(f"{without_credentials(url)} broke off, and the server cannot continue it")
        received += len(chunk)
        yield chunk


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


def _attempt(
    url: str,
    use: Callable[[requests.Response], None],
    headers: dict[str, str],
    certificates: str | None,
    method: str = "GET",
) -> None:
    shown = without_credentials(url)
    failures = 0
    while True:
        try:
            with _request(method, url, shown, headers, certificates) as response:
                use(response)
            return
        except _Retry as error:
            failures += 1
            _wait(shown, failures, error)


def _wait(shown: str, failures: int, error: _Retry) -> None:
    """Wait before the next attempt. Raises TransientError when there have been enough."""
    if failures > len(RETRY_DELAYS):
        raise TransientError(f"{shown} could not be fetched in {failures} attempts: {error}") from error
    wait = min(max(RETRY_DELAYS[failures - 1], error.wait), _LONGEST_WAIT)
    logger.info(f"{shown}: {error}; trying again in {wait:.0f} s")
    time.sleep(wait)


class _Body:
    """A URL's body, fetched in as many requests as its connection breaks into."""

    def __init__(self, url: str) -> None:
        self.url, self.shown = url, without_credentials(url)
        self.size: int | None = None  # bytes, where the server tells it
        self._received = 0
        self._version = ""  # what tells whether the file at the URL is still the same one; empty: no way to tell

    def read(self, certificates: str | None) -> Iterator[tuple[int, bytes]]:
        """Pieces of the body, each with its offset; an offset of 0 after others means that all begins anew."""
        failures = 0
        while True:
            reached, continued = self._received, False
            try:
                with _request("GET", self.url, self.shown, self._headers(), certificates) as response:
                    continued = self._begin(response)
                    for chunk in response.iter_content(_CHUNK):
                        offset = self._received
                        self._received += len(chunk)
                        yield offset, chunk
                    self._check_whole(response)
                if not self._received:
                    yield 0, b""
                return
            except _Retry as error:
                if isinstance(error, _CannotContinue):
                    self._received, self._version = 0, ""
                # A long download over a poor line goes on as long as each attempt brings it further.
                failures = 1 if continued and self._received > reached else failures + 1
                _wait(self.shown, failures, error)

    def _headers(self) -> dict[str, str]:
        if not (self._received and self._version):
            return {}
        return {"Range": f"bytes={self._received}-", "If-Range": self._version}

    def _begin(self, response: requests.Response) -> bool:
        """Take note of what the server sends: True for the rest that was asked for, False for the whole."""
        version, announced = _version(response), response.headers.get("Content-Length", "")
        if response.status_code == 206:
            place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            total = int(place[2]) if place and place[2].isdigit() else self.size
            if place and int(place[1]) == self._received and total == self.size and version in ("", self._version):
                logger.info(f"{self.shown}: continuing after {self._received:,} bytes")
                return True
            raise _CannotContinue("the server continued another file, or at another place")
        self._received, self._version = 0, version
        self.size = int(announced) if announced.isdigit() else None
        return False

    def _check_whole(self, response: requests.Response) -> None:
        # Counted as sent; urllib3 before 2 ends a short body without a word.
        encoded = response.headers.get("Content-Encoding", "identity") != "identity"
        arrived = response.raw.tell() if encoded else self._received
        if self.size is not None and arrived != self.size:
            raise _Retry(f"the body is cut short: {arrived:,} of {self.size:,} bytes came")


def _version(response: requests.Response) -> str:
    """The strong validator of a response, which a request for the rest may name; empty when it has none."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        return ""  # what is counted here are decoded bytes
    tag = response.headers.get("ETag", "")
    return response.headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag


@contextlib.contextmanager
def _request(
    method: str, url: str, shown: str, headers: dict[str, str], certificates: str | None
) -> Iterator[requests.Response]:
    """The response, while it is read. What goes wrong meanwhile is _Retry or UserError."""
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
            yield response
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
    if status == 416:
        raise _CannotContinue(reason)
    if status >= 500 or status in _TRANSIENT_STATUS:
        after = response.headers.get("Retry-After", "")
        raise _Retry(reason, float(after) if after.isdigit() else 0.0)
    kind = MissingError if status in (404, 410) else UserError
    raise kind(f"{shown}: {reason}; the URL must name a file that can be fetched")


def _target(file: IO[bytes], compress: bool) -> Any:
    if not compress:
        return file
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL).stream_writer(file, closefd=False)


def without_credentials(url: str) -> str:
    """The URL as it may be shown."""
    return re.sub(r"(?<=://)[^/@]*@", "", url)
