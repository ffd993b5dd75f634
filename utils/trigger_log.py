"""The log of triggers: `triggers.jsonl` in the runs folder, a line of JSON for each, only ever appended to."""

import json
import os
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from limbeck_engines.store import Store

_NAME = "triggers.jsonl"


def log_trigger(
    store: Store, config: Path, name: str, group_id: str | None, counts: dict[str, int], flags: Sequence[str]
) -> None:
    """Append a line. `group_id` is None when nothing was left to run."""
    entry = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "config": str(config.absolute()),
        "name": name,
        "group": group_id,
        "counts": counts,
        "versions": {"limbeck": version("limbeck"), "python": sys.version.split()[0]},
        "flags": list(flags),
    }
    line = (json.dumps(entry, ensure_ascii=False) + "\n").encode()
    # One write of a file opened for appending: lines of two triggers at once do not mix.
    descriptor = os.open(store.layout.root / _NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def read_triggers(store: Store) -> dict[str, dict[str, Any]]:
    """The entries by group id. A line that a power cut left half written is passed over."""
    path = store.layout.root / _NAME
    entries: dict[str, dict[str, Any]] = {}
    if not path.exists():
        return entries
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry["group"]:
            entries[entry["group"]] = entry
    return entries
