"""The catalogue of artifact types (taskcluster/artifacts.yml)."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class ArtifactType:
    """One type: its files by role (templates), the kinds that make it, and where the config can inject it."""

    name: str
    files: dict[str, str]
    made_by: tuple[str, ...]
    first_of: bool
    config_key: str | None


@functools.cache
def load_catalogue() -> dict[str, ArtifactType]:
    """All artifact types by name. Raises ValueError on an entry without files or makers."""
    entries: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "artifacts.yml").read_text(encoding="utf-8"))
    catalogue = {}
    for name, entry in entries.items():
        # A merged anchor brings made-by along, so the more special key wins.
        first_of = "made-by-first-of" in entry
        made_by = entry.get("made-by-first-of") or entry.get("made-by")
        if not made_by or not entry.get("files"):
            raise ValueError(f"artifacts.yml: {name} needs files and made-by")
        catalogue[name] = ArtifactType(name, entry["files"], tuple(made_by), first_of, entry.get("config-key"))
    return catalogue
