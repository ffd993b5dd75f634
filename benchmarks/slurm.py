"""How long it takes to hand groups of 1,000 tasks over to Slurm, to ask for their state, and to cancel them.

Starts a Slurm of its own on loopback, which needs root and the packages slurm-wlm and munge. `flat`: 1,000 tasks of as
many kinds, so a job for each; `chunks`: arrays, each chunk after its own of the array before; `chain`: 300 tasks, each
after the one before, which nothing can do side by side.

  python benchmarks/slurm.py
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

import slurm_cluster
from engine_graphs import make_task
from slurm_cluster import SlurmCluster
from slurm_site import Site

from limbeck_engines.task import Task

# Nothing of it is to run.
PROFILE = "defaults: {memory: 100MB, options: [--begin=now+1hour]}\n"


def of_kind(task: Task, kind: str) -> Task:
    task.definition["tags"]["kind"] = kind
    return task


def flat() -> list[Task]:
    return [of_kind(make_task(f"task-{number}"), f"kind-{number}") for number in range(1000)]


def chunks() -> list[Task]:
    split = make_task("split")
    translate = [of_kind(make_task(f"translate-{n}", after=(split,)), "translate") for n in range(499)]
    score = [of_kind(make_task(f"score-{n}", after=(task,)), "score") for n, task in enumerate(translate)]
    return [split, *translate, *score, make_task("merge", after=tuple(score))]


def chain() -> list[Task]:
    tasks = [make_task("task-0")]
    for number in range(1, 300):
        tasks.append(make_task(f"task-{number}", after=(tasks[-1],)))
    return tasks


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def main() -> None:
    if missing := slurm_cluster.missing():
        print(f"left out: {missing}")
        return
    with tempfile.TemporaryDirectory(prefix="slurm") as folder:
        cluster = SlurmCluster(Path(folder, "cluster"))
        try:
            cluster.start()
            os.environ.update(cluster.environment)
            print(f"{'':<8}{'tasks':>6}{'jobs':>6}{'submit':>10}{'status':>10}{'cancel':>10}")
            for graph in (flat, chunks, chain):
                Path(folder, graph.__name__).mkdir()
                site, tasks = Site(Path(folder, graph.__name__), cluster, PROFILE), graph()
                submit = seconds(lambda: site.engine.submit(site.group, "benchmark", tasks, ""))  # noqa: B023
                rows = site.engine.store.tasks(site.group)
                status = seconds(lambda: site.engine.status(site.group))  # noqa: B023
                cancel = seconds(lambda: site.engine.cancel(site.group))  # noqa: B023
                jobs = len({str(row.job).partition("_")[0] for row in rows})
                figures = "".join(f"{figure:>8.2f} s" for figure in (submit, status, cancel))
                print(f"{graph.__name__:<8}{len(tasks):>6}{jobs:>6}{figures}", flush=True)
        finally:
            cluster.stop()


if __name__ == "__main__":
    main()
