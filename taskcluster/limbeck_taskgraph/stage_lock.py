"""The lock between a stage's version and its sources.

A task's digest holds the stage's integer `version` and no source code, so that a refactor retrains nothing. What keeps
the version honest is a committed file, `taskcluster/stages.lock.json`: for each kind its versions and a hash of the
sources that its steps run. When sources change, a test fails until somebody says which it was: a new result (raise
`version` in kind.yml) or the same one (`python -m utils.stage_lock --changes-no-result`).

The hash is of the syntax tree without comments and docstrings, of the step's module and everything of `pipeline` that
it imports, and of the data files beside those modules.
"""

import ast
import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from limbeck_taskgraph.catalogue import ROOT

DATA_SUFFIXES = (".yml", ".yaml", ".json")
LOCK_FILE = ROOT / "stages.lock.json"
Lock = dict[str, dict[str, Any]]


def current_lock(project: Path = ROOT.parent) -> Lock:
    """What the lock file would hold now: kind -> {"versions": {entry: version}, "sources": hash}."""
    lock: Lock = {}
    sources = Sources(project)
    for path in sorted((project / "taskcluster" / "kinds").glob("*/kind.yml")):
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))["tasks"]
        modules = sorted({entry["run"]["module"] for entry in entries.values() if "run" in entry})
        if modules:
            versions = {name: entry["version"] for name, entry in entries.items()}
            lock[path.parent.name] = {"versions": versions, "sources": sources.hash(modules)}
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


class Sources:
    """The project's sources as they are now, each read once."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self._meanings: dict[Path, str] = {}
        self._imports: dict[str, list[str]] = {}

    def hash(self, modules: list[str]) -> str:
        """SHA-256 (hex) over the modules, all of `pipeline` that they import, and the data files of their folders.

        Raises FileNotFoundError for a module that does not exist.
        """
        for module in modules:
            if self._path(module) is None:
                raise FileNotFoundError(f"a kind runs {module}, which does not exist")
        seen: set[str] = set()
        queue = list(modules)
        while queue:
            module = queue.pop()
            if module not in seen:
                seen.add(module)
                queue.extend(self._imported(module))
        files = {path for module in seen if (path := self._path(module))}
        data = {file for path in files for file in path.parent.iterdir() if file.suffix in DATA_SUFFIXES}
        digest = hashlib.sha256()
        for file in sorted(files | data):
            digest.update(f"{file.relative_to(self.project)}\0{self._meaning(file)}\0".encode())
        return digest.hexdigest()

    def _path(self, module: str) -> Path | None:
        path = self.project.joinpath(*module.split("."))
        candidates = (path.with_suffix(".py"), path / "__init__.py")
        return next((candidate for candidate in candidates if candidate.is_file()), None)

    def _imported(self, module: str) -> list[str]:
        if module not in self._imports:
            path = self._path(module)
            nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if path else ()
            found = []
            for node in nodes:
                if isinstance(node, ast.ImportFrom) and node.module:
                    found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                elif isinstance(node, ast.Import):
                    found += [alias.name for alias in node.names]
            self._imports[module] = [name for name in found if name.split(".")[0] == "pipeline"]
        return self._imports[module]

    def _meaning(self, path: Path) -> str:
        if path not in self._meanings:
            self._meanings[path] = meaning(path)
        return self._meanings[path]


def meaning(path: Path) -> str:
    """A source file without what changes no result: comments, docstrings, layout."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return json.dumps(yaml.safe_load(text), sort_keys=True, default=str)
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:]
    return ast.dump(tree)
