"""The lock between a stage's version and its sources.

A task's digest holds the stage's integer `version` and no source code, so that a refactor retrains nothing. What keeps
the version honest is a committed file, `taskcluster/stages.lock.json`: for each kind its versions and a hash of the
sources that its steps run. When sources change, a test fails until somebody says which it was: a new result (raise
`version` in kind.yml) or the same one (`python -m utils.stage_lock --changes-no-result`).

The hash is of the syntax tree without comments and docstrings, of the step's module and everything of `pipeline` that
it imports, and of the data files beside those modules.
"""

import ast
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from limbeck_taskgraph.catalogue import ROOT

LOCK_FILE = ROOT / "stages.lock.json"
Lock = dict[str, dict[str, Any]]


def current_lock(project: Path = ROOT.parent) -> Lock:
    """What the lock file would hold now: kind -> {"versions": {entry: version}, "sources": hash}."""
    lock: Lock = {}
    for path in sorted((project / "taskcluster" / "kinds").glob("*/kind.yml")):
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))["tasks"]
        modules = sorted({entry["run"]["module"] for entry in entries.values() if "run" in entry})
        if modules:
            versions = {name: entry["version"] for name, entry in entries.items()}
            lock[path.parent.name] = {"versions": versions, "sources": sources_hash(modules, project)}
    return lock


def read_lock(path: Path = LOCK_FILE) -> Lock:
    """The committed lock; empty when there is none yet."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def unexplained_changes(locked: Lock, current: Lock) -> list[str]:
    """Kinds whose sources changed while no version of theirs did."""
    return [
        kind
        for kind, now in current.items()
        if kind in locked and locked[kind]["sources"] != now["sources"] and locked[kind]["versions"] == now["versions"]
    ]


def sources_hash(modules: list[str], project: Path) -> str:
    """SHA-256 (hex) over the modules, all of `pipeline` that they import, and the data files of their folders."""
    for module in modules:
        if _path(module, project) is None:
            raise FileNotFoundError(f"a kind runs {module}, which does not exist")
    digest = hashlib.sha256()
    seen: set[str] = set()
    queue = list(modules)
    while queue:
        module = queue.pop()
        if module not in seen:
            seen.add(module)
            queue.extend(_imports(module, project))
    files = {path for module in seen if (path := _path(module, project))}
    data = {file for path in files for file in path.parent.iterdir() if file.suffix in (".yml", ".yaml", ".json")}
    for file in sorted(files | data):
        digest.update(f"{file.relative_to(project)}\0{_meaning(file)}\0".encode())
    return digest.hexdigest()


def _path(module: str, project: Path) -> Path | None:
    path = project.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _imports(module: str, project: Path) -> list[str]:
    path = _path(module, project)
    if path is None:
        return []
    found = []
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return [name for name in found if name.split(".")[0] == "pipeline"]


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def _meaning(path: Path) -> str:
    if path.suffix != ".py":
        return json.dumps(yaml.safe_load(path.read_text(encoding="utf-8")), sort_keys=True, default=str)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            node.body = (body or [])[1:]
    return ast.dump(tree)
