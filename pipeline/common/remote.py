"""Files of elsewhere, named by a URI: http(s), file, a path of this machine, or any storage that fsspec knows.

s3://, gs://, abfs:// and the like need their fsspec driver (extra `cloud` brings those of S3 and Google) and take their
credentials from the environment, as each driver documents.
"""

import os
import re
import shutil
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
    shown = without_credentials(uri)
    scheme = uri.partition("://")[0]
    try:
        system, place = fsspec.core.url_to_fs(uri)
        return question(system, place)
    except ImportError as error:
        raise UserError(
            f"{shown}: the driver of {scheme}:// is not installed ({error}): pip install 'limbeck[cloud]', or the "
            "fsspec driver of that storage"
        ) from error
    except ValueError as error:
        raise UserError(f"{shown} cannot be read: {error}") from error
    except FileNotFoundError as error:
        raise MissingError(f"{shown} does not exist") from error
    except PermissionError as error:
        raise UserError(f"{shown} may not be read with the credentials that are set: {error}") from error
    except (OSError, TimeoutError) as error:
        raise TransientError(f"{shown} cannot be reached: {error}") from error
