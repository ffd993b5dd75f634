"""Files of elsewhere, named by a URI: http(s), file, a path of this machine, or any storage that fsspec knows.

s3://, gs://, abfs:// and the like need their fsspec driver (extra `cloud` brings those of S3 and Google) and take their
credentials from the environment, as each driver documents. Where files are written is in storage.py.
"""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import fsspec

from pipeline.common.download import MissingError, download, remote_size, without_credentials
from pipeline.common.errors import TransientError, UserError

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)


def local_path(uri: str) -> Path | None:
    """The path that a URI means if it is of this machine (`file://…`, `~/…`, `$DATA/…`, a path); otherwise None.

    Raises UserError for a variable that is not set, and for a file URI of another machine.
    """
    scheme = _SCHEME.match(uri)
    if scheme is None:
        for braced, plain in re.findall(r"\$(?:\{(\w+)\}|([A-Za-z_]\w*))", uri):
            if (braced or plain) not in os.environ:
                raise UserError(f"{uri}: the environment variable {braced or plain} is not set")
        return Path(os.path.expandvars(uri)).expanduser()
    if scheme[1].lower() != "file":
        return None
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise UserError(f"{uri} names a file of another machine ({parts.netloc}): write file:///path")
    return Path(unquote(parts.path))


def join(uri: str, name: str) -> str:
    """The URI of a file in the folder that `uri` names; a query (`?token=…`) stays at the end."""
    base, mark, query = uri.partition("?")
    return f"{base.rstrip('/')}/{name}{mark}{query}"


def size(uri: str) -> int | None:
    """How many bytes the file at a URI has, without fetching it; None when that is not known before.

    Raises MissingError (a UserError) when there is no such file, UserError when it may not be read, and TransientError
    when the server cannot be reached now.
    """
    path = local_path(uri)
    if path is not None:
        if not path.is_file():
            raise MissingError(f"{uri} {'is a folder, not a file' if path.is_dir() else 'does not exist'}")
        return path.stat().st_size
    if _is_web(uri):
        return remote_size(uri)
    found = _ask_storage(uri, lambda system, place: system.size(place))
    return None if found is None else int(found)


def exists(uri: str) -> bool:
    """Whether there is a file at a URI. Raises as `size` does when that cannot be told."""
    try:
        size(uri)
    except MissingError:
        return False
    return True


def fetch(uri: str, path: Path) -> None:
    """Bring the file at a URI to `path`, whole or not at all. Raises as `size` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        source = local_path(uri)
        if source is not None:
            size(uri)
            shutil.copyfile(source, temporary)
        elif _is_web(uri):
            download(uri, temporary)
        else:
            _ask_storage(uri, lambda system, place: system.get_file(place, str(temporary)))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _is_web(uri: str) -> bool:
    return uri.lower().startswith(("http://", "https://"))


def _ask_storage(uri: str, question: Any) -> Any:
    with explained(uri, "read"):
        system, place = fsspec.core.url_to_fs(uri)
        return question(system, place)


# What drivers raise, beside Python's own errors: the first are of botocore and google-auth.
_CREDENTIALS = re.compile(r"Credential|RefreshError|ProfileNotFound|NoAuthToken|SSOToken|TokenRetrieval")
_DRIVERS = ("aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "requests", "urllib3")
_PERMANENT = frozenset(
    getattr(errno, name)
    for name in ("EINVAL", "EISDIR", "EMSGSIZE", "ENAMETOOLONG", "ENOSYS", "ENOTDIR", "EPERM", "EROFS")
)


@contextlib.contextmanager
def explained(uri: str, doing: str) -> Iterator[None]:
    """Says what the drivers of storages raise in the block as people need it; `doing` is "read" or "written".

    Raises MissingError, UserError, or TransientError when a retry may help. FileExistsError stays as it is, and so does
    a full disk, of which the command's frame tells.
    """
    shown, scheme = without_credentials(uri), uri.partition("://")[0]
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"{shown}: the driver of {scheme}:// is not installed ({error}): pip install 'limbeck[cloud]', or the "
            "fsspec driver of that storage"
        ) from error
    except FileNotFoundError as error:
        if doing == "read":
            raise MissingError(f"{shown} does not exist") from error
        raise UserError(f"{shown} cannot be written, its bucket or folder must be there before: {error}") from error
    except (UserError, TransientError, FileExistsError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        name = type(error).__name__
        if _CREDENTIALS.search(name):
            raise UserError(
                f"{shown} cannot be {doing}, as there are no valid credentials for {scheme}:// ({error}): set those "
                "that its driver documents, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                "GOOGLE_APPLICATION_CREDENTIALS"
            ) from error
        if isinstance(error, PermissionError) or str(error).startswith("Forbidden"):
            raise UserError(f"{shown} may not be {doing} with the credentials that are set: {error}") from error
        if isinstance(error, ValueError) or name == "ParamValidationError" or _is_permanent(error):
            raise UserError(f"{shown} cannot be {doing}: {error}") from error
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _DRIVERS:
            raise TransientError(f"{shown} cannot be reached: {error}") from error
        raise


def _is_permanent(error: Exception) -> bool:
    status = getattr(error, "code", None)  # of gcsfs
    refused = isinstance(status, int) and 400 <= status < 500 and status not in (408, 429)
    return refused or (isinstance(error, OSError) and error.errno in _PERMANENT)
