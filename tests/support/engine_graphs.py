"""Small graphs of real commands, for the engine's tests, and a command that runs one in a process of its own."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from limbeck_engines.display import PlainDisplay
from limbeck_engines.execution import Settings
from limbeck_engines.local import LocalEngine
from limbeck_engines.task import Resources, Task

BUILD = "public/build"
FAST = Settings(backoff=0.01, grace=1.0, refresh=0.05)


def make_task(
    label: str,
    script: str = "true",
    after: tuple[Task, ...] = (),
    fetches: list[dict[str, Any]] | None = None,
    resources: Resources = Resources(),  # noqa: B008 (frozen)
    task_id: str | None = None,
    digest: str | None = None,
    **payload: Any,
) -> Task:
    """A task that runs a shell script. Its id is its label unless given."""
    env = {"MOZ_FETCHES": json.dumps(fetches)} if fetches else {}
    definition = {
        "payload": {
            "command": [["sh", "-c", script]],
            "env": env,
            "artifacts": [{"type": "directory", "path": "artifacts", "name": BUILD}],
            **payload,
        },
        "tags": {"kind": "example"},
    }
    digest = digest or hashlib.sha256(label.encode()).hexdigest()
    return Task(task_id or label, label, definition, tuple(task.task_id for task in after), digest, resources)


def fetch(task: Task, name: str, dest: str = "") -> dict[str, Any]:
    return {"artifact": f"{BUILD}/{name}", "task": task.task_id, "dest": dest, "extract": False}


def make_engine(runs: Path, cpus: int = 2, **options: Any) -> LocalEngine:
    return LocalEngine(runs, cpus=cpus, memory=1 << 30, gpus=options.pop("gpus", 0), settings=FAST, **options)


def states(engine: LocalEngine, group_id: str) -> dict[str, str]:
    return {row.label: row.state for row in engine.status(group_id).tasks}


if __name__ == "__main__":
    runs, group, action = sys.argv[1:]
    engine = make_engine(Path(runs), cpus=4)
    summary = getattr(engine, action)(group, PlainDisplay())
    sys.exit(0 if summary.succeeded else 3)
