"""From a planned graph to what the local engine runs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taskgraph.taskgraph import TaskGraph

from limbeck_engines.machine import parse_size
from limbeck_engines.store import Store
from limbeck_engines.task import Resources, Task
from limbeck_taskgraph.generate import worker_resources
from pipeline.common.errors import UserError


def engine_tasks(graph: TaskGraph, gpus: int | None) -> list[Task]:
    """The tasks of a planned graph as an engine takes them, in an order in which they could run.

    `gpus` are those of the machine that they run on; None: they run elsewhere, and get what they ask for.
    """
    resources = worker_resources()
    if gpus == 0 and any(resources[task.attributes["worker-type"]]["gpus"] for task in graph):
        print("No GPU found: training and translation run on the processors.")
    return [
        Task(
            task_id=task_id,
            label=graph.tasks[task_id].label,
            definition=graph.tasks[task_id].task,
            dependencies=tuple(graph.tasks[task_id].task["dependencies"]),
            digest=graph.tasks[task_id].attributes["digest"],
            resources=_resources(resources[graph.tasks[task_id].attributes["worker-type"]], gpus),
        )
        for task_id in graph.graph.visit_postorder()
    ]


def check_inputs(store: Store, graph: TaskGraph) -> None:
    """Raise UserError unless the reused tasks have every file that a task of a planned graph reads of them.

    A task that a person named may have made something else than the one it stands for.
    """
    for task in graph:
        for fetch in json.loads(task.task.get("payload", {}).get("env", {}).get("MOZ_FETCHES", "[]")):
            if fetch["task"] in graph.tasks:
                continue
            folder, row = store.run_folder(fetch["task"]), store.task(fetch["task"])
            if folder is None or not (folder / "artifacts" / fetch["artifact"]).exists():
                raise UserError(
                    f"{row.label} ({row.task_id}) cannot be reused: it has no {fetch['artifact']}, which {task.label} "
                    "reads"
                )


def gpu_count() -> int:
    """How many NVIDIA GPUs this machine shows (without importing torch, which takes seconds)."""
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*"))) if Path("/proc/driver/nvidia/gpus").exists() else 0


def _resources(wanted: Mapping[str, Any], gpus: int | None) -> Resources:
    use_gpu = bool(wanted["gpus"] and gpus != 0)
    # With a GPU, a task needs few processors: one for each GPU's data.
    cpus = 1 if use_gpu and wanted["cpus"] == "all" else wanted["cpus"]
    return Resources(cpus=cpus, gpus=wanted["gpus"] if use_gpu else 0, memory=parse_size(str(wanted["memory"])))
