"""The digest of a task: a hash of what it means, never of how its code is written.

It covers the stage's name and version, the languages, the values it is run with and its inputs' digests. A refactor
changes none of these.
"""

import hashlib
import json
from typing import Any


def task_digest(meaning: dict[str, Any]) -> str:
    """SHA-256 (hex) of a task's meaning. Which tasks made an input does not count, only what they made."""
    inputs = {name: list(makers.values()) for name, makers in meaning["inputs"].items()}
    canonical = json.dumps({**meaning, "inputs": inputs}, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
