"""What the local engine costs: graphs of 1,000 tasks that do nothing, all at once and one after the other.

Example: python benchmarks/engine.py --tasks 1000
"""

import argparse
import hashlib
import subprocess
import tempfile
import time
from pathlib import Path

import slugid

from limbeck_engines.local import LocalEngine
from limbeck_engines.task import Resources, Task


def make_graph(shape: str, count: int) -> list[Task]:
    """Tasks that run `true` and publish an empty folder."""
    tasks: list[Task] = []
    for number in range(count):
        label = f"{shape}-{number}"
        payload = {"command": [["true"]], "artifacts": [{"type": "directory", "path": "artifacts", "name": "public"}]}
        dependencies = (tasks[-1].task_id,) if shape == "chain" and tasks else ()
        digest = hashlib.sha256(label.encode()).hexdigest()
        task_id = slugid.nice()
        tasks.append(Task(task_id, label, {"payload": payload}, dependencies, digest, Resources(1, 0, 0)))
    return tasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1000)
    count = parser.parse_args().tasks
    started = time.perf_counter()
    for _ in range(100):
        subprocess.run(["true"], check=True)
    print(f"bare subprocess: {(time.perf_counter() - started) * 10:.1f} ms a task")
    for shape in ("flat", "chain"):
        with tempfile.TemporaryDirectory() as folder:
            engine = LocalEngine(Path(folder))
            started = time.perf_counter()
            engine.submit(shape, shape, make_graph(shape, count), "")
            submitted = time.perf_counter()
            summary = engine.run(shape)
            ended = time.perf_counter()
            assert summary.succeeded, summary
            print(
                f"{shape}: {count} tasks, {(ended - submitted) / count * 1000:.1f} ms a task "
                f"({ended - submitted:.2f} s on {engine.machine.cpus} CPUs; submitted in {submitted - started:.2f} s)"
            )


if __name__ == "__main__":
    main()
