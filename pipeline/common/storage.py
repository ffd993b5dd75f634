"""Folders of any storage that fsspec knows, to write to: what is there, putting files, and telling whether they are
the same.

Storages tell different things of an object without sending it: S3 its ETag, the MD5 of the content or of the MD5s of
its parts; Google's the MD5; others the size alone. What they do not tell is found by reading the object back.
"""

import base64
import errno
import hashlib
import logging
import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from pipeline.common.download import MissingError, without_credentials
from pipeline.common.errors import UserError
from pipeline.common.remote import explained, local_path

logger = logging.getLogger(__name__)

PART = 8 << 20  # bytes of a file that are sent at once
_PARTS_AT_ONCE = 2
_MOST_PARTS = 9_000  # S3 allows 10,000
# Their objects appear whole or not at all. Elsewhere files get their names by a rename.
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "memory"})
_S3 = frozenset({"s3", "s3a"})


@dataclass(frozen=True)
class Digests:
    """What identifies a local file's content: bytes, SHA-256, MD5, and S3's ETag of it, sent by `Folder.put`."""

    size: int
    sha256: str
    md5: str
    etag: str


def digests(path: Path, read: Callable[[int], None] = lambda _: None) -> Digests:
    """Read a file once; `read` is told of every part's bytes."""
    size = path.stat().st_size
    part_size = _part_size(size)
    sha256, md5, parts = hashlib.sha256(), hashlib.md5(usedforsecurity=False), []
    with path.open("rb") as file:
        while part := file.read(part_size):
            sha256.update(part)
            md5.update(part)
            parts.append(hashlib.md5(part, usedforsecurity=False).digest())
            read(len(part))
    etag = md5.hexdigest()
    if size >= 2 * part_size:
        etag = f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"
    return Digests(size, sha256.hexdigest(), md5.hexdigest(), etag)


def _part_size(size: int) -> int:
    return max(PART, math.ceil(size / _MOST_PARTS / PART) * PART)


class Folder:
    """A folder of a storage. Its names have forward slashes.

    Every method raises UserError when the storage refuses, and TransientError when it cannot be reached now.
    """

    def __init__(self, uri: str) -> None:
        """`uri` as in pipeline.common.remote. Raises UserError for http(s), and without the storage's driver."""
        self.shown = without_credentials(uri).rstrip("/")
        self._scheme = uri.partition("://")[0].lower() if "://" in uri else "file"
        if self._scheme in ("http", "https"):
            raise UserError(f"{self.shown}: web servers take no files: s3://, gs:// or file:// can be written to")
        self._is_conditional = True
        local = local_path(uri)
        if local is not None:
            self._system: Any = fsspec.filesystem("file", auto_mkdir=True)
            self._root = str(local.absolute())
        else:
            with explained(uri, "written"):
                self._system, self._root = fsspec.core.url_to_fs(uri)
        if not self._root.strip("/"):
            raise UserError(f"{self.shown} names no folder to write to, such as s3://bucket/models")

    def uri(self, name: str) -> str:
        """The URI of a file, as it may be shown."""
        return f"{self.shown}/{name}"

    def same(self, name: str, local: Digests, read_back: bool = True) -> bool | None:
        """Whether the file under a name has this content; None when there is none. Without `read_back` its size is
        enough where the storage tells no digest that can be compared."""
        info = self._info(name)
        if info is None:
            return None
        if info["type"] == "directory" or info["size"] != local.size:
            return False
        told = str(info.get("ETag") or "").strip('"').lower() if self._scheme in _S3 else ""
        if told in (local.md5, local.etag) or _google_md5(info) == local.md5:
            return True
        # Sent in other parts, encrypted, or of a storage that tells nothing.
        return not read_back or self.sha256(name) == local.sha256

    def sha256(self, name: str) -> str:
        """The digest of a file, which is read for it."""
        found = hashlib.sha256()
        with explained(self.uri(name), "read"), self._system.open(self._place(name), "rb", block_size=PART) as file:
            while part := file.read(PART):
                found.update(part)
        return found.hexdigest()

    def read(self, name: str) -> bytes:
        """The content of a small file. Raises MissingError when there is none."""
        with explained(self.uri(name), "read"):
            content: bytes = self._system.cat_file(self._place(name))
            return content

    def put(self, path: Path, name: str, replace: bool, sent: Callable[[int], None] = lambda _: None) -> None:
        """Send a file, whole or not at all; `sent` is told of every part's bytes, and may raise to stop it.

        Raises FileExistsError when there is something under the name and it is not to be replaced, of storages that
        can tell that in the same moment.
        """
        told = 0

        def progress(size: int | None, value: int, **_: Any) -> None:
            nonlocal told
            sent(value - told)
            told = value

        callback = fsspec.callbacks.Callback(hooks={"sent": progress})
        if self._scheme not in _OBJECT_STORES:
            self._put_and_rename(path, name, callback)
        else:
            self._put_object(path, name, replace, callback)
        size = path.stat().st_size
        if told < size:  # of storages that do not tell on the way
            sent(size - told)

    def _put_object(self, path: Path, name: str, replace: bool, callback: Any) -> None:
        options: dict[str, Any] = {} if replace or not self._is_conditional else {"mode": "create"}
        if self._scheme != "memory":
            options["chunksize"] = _part_size(path.stat().st_size)
        if self._scheme in _S3:
            options["max_concurrency"] = _PARTS_AT_ONCE
        with explained(self.uri(name), "written"):
            try:
                self._system.put_file(str(path), self._place(name), callback=callback, **options)
            except OSError as error:
                if "mode" not in options or error.errno != errno.ENOSYS:
                    raise
                self._is_conditional = False
                logger.warning(
                    f"{self.shown} cannot write on condition that there is nothing, as not every storage that speaks "
                    "S3 can: uploads to the same place at the same moment could replace each other's files"
                )
                self._system.put_file(
                    str(path), self._place(name), callback=callback, **options | {"mode": "overwrite"}
                )

    def _put_and_rename(self, path: Path, name: str, callback: Any) -> None:
        place = self._place(name)
        parent, _, last = place.rpartition("/")
        temporary = f"{parent}/.{last}.{uuid.uuid4().hex[:8]}.tmp"
        with explained(self.uri(name), "written"):
            self._system.makedirs(parent, exist_ok=True)
            try:
                self._system.put_file(str(path), temporary, callback=callback)
                self._system.mv(temporary, place)
            except BaseException:
                if self._system.exists(temporary):
                    self._system.rm_file(temporary)
                raise

    def _place(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _info(self, name: str) -> dict[str, Any] | None:
        try:
            with explained(self.uri(name), "read"):
                info: dict[str, Any] = self._system.info(self._place(name))
                return info
        except MissingError:
            return None


def _google_md5(info: dict[str, Any]) -> str:
    return base64.b64decode(str(info.get("md5Hash") or "")).hex()
