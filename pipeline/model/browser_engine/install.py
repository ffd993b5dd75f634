"""The engine's package from npm: fetched once, kept in the user's cache, and used from there without a network."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from pipeline.common.errors import TransientError, UserError

HERE = Path(__file__).parent
PACKAGE = "node_modules/@browsermt/bergamot-translator"
INSTALL_SECONDS = 300
# By the names that a page gives them: beside each other, as the package's own modules look for one another.
_PACKAGE_FILES = (
    "translator.js",
    "worker/translator-worker.js",
    "worker/bergamot-translator-worker.js",
    "worker/bergamot-translator-worker.wasm",
)
# What npm says where a registry was not reached or was not well; the rest stays as it is however often it is tried.
_UNREACHABLE = (
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ECONNRESET",
    "EHOSTUNREACH",
    "ENETUNREACH",
    "ENOTFOUND",
    "ERR_SOCKET_TIMEOUT",
    "ETIMEDOUT",
    "E429",
    "E50",
)


def engine_version() -> str:
    """The version of the package that package-lock.json pins."""
    lock = json.loads((HERE / "package-lock.json").read_text(encoding="utf-8"))
    return str(lock["packages"][PACKAGE]["version"])


def engine_folder() -> Path:
    """The folder that holds node_modules with the engine; npm installs it when it is asked for first.

    It lies in $LIMBECK_CACHE, else in $XDG_CACHE_HOME/limbeck, else in ~/.cache/limbeck, and is named by the engine's
    version. It appears whole or not at all, and is installed once however many ask at the same time.

    Where it lies already, neither npm nor a network is needed. Raises UserError when it has to be installed and Node or
    npm is absent, or npm refuses, and TransientError when its registry is not reached.
    """
    own = os.environ.get("LIMBECK_CACHE")
    cache = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "limbeck"
    folder = cache.expanduser() / f"browser-engine-{engine_version()}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_name(f"{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                _install(folder)
    return folder


def engine_files() -> dict[str, Path]:
    """What a page must serve to translate, by relative addresses: the package's own module translator.js with its
    worker, the engine's script and WebAssembly, and engine.js, which drives them in the page itself.

    Raises what engine_folder raises, and UserError when a file is gone from the cache.
    """
    folder = engine_folder()
    package = folder / PACKAGE
    files = {name: package / name for name in _PACKAGE_FILES} | {"engine.js": HERE / "engine.js"}
    if missing := next((path for path in files.values() if not path.is_file()), None):
        raise UserError(f"{missing} is missing: delete {folder}, and the browser's engine is installed anew")
    return files


def check_node(*others: str) -> None:
    """Raises UserError when Node, or another program named, is not there."""
    if missing := [program for program in ("node", *others) if shutil.which(program) is None]:
        raise UserError(
            f"the browser's engine runs in Node, but there is no {' and no '.join(missing)} on the PATH: install Node "
            "18 or newer with npm"
        )


def _install(folder: Path) -> None:
    check_node("npm")
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    # npm's own waits between attempts, 10 s and 60 s, are those of a build farm.
    command += ["--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000"]
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}-", dir=folder.parent) as temporary:
        whole = Path(temporary) / "engine"
        whole.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(HERE / name, whole / name)
        try:
            done = subprocess.run(
                command, cwd=whole, capture_output=True, text=True, timeout=INSTALL_SECONDS, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            raise TransientError(
                f"npm did not install the browser's engine within {INSTALL_SECONDS} s: its registry may not be reached"
            ) from None
        if done.returncode:
            raise _refused(done.stderr)
        whole.rename(folder)


def _refused(messages: str) -> UserError | TransientError:
    # As npm 10.6 and newer write it, and as those of Node 18 do.
    lines = [line.strip() for line in re.findall(r"^npm (?:error|ERR!) (.*)", messages, re.MULTILINE)]
    said = "; ".join(line for line in lines if line and "complete log" not in line)[:300] or messages.strip()[-300:]
    code = next((line.removeprefix("code ") for line in lines if line.startswith("code ")), said)
    if code.startswith(_UNREACHABLE):
        return TransientError(f"npm did not reach its registry, which has the browser's engine, or not well: {said}")
    return UserError(f"npm could not install the browser's engine: {said}")
