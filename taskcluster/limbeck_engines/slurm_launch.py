"""Training on several nodes of one job: what stands before a task's command, and torchrun as it runs on each node.

`python -m limbeck_engines.slurm_launch` is torch's own launcher, as torchrun is; only that it ends with exit code 75
when the training did, which torchrun makes a 1 of.
"""

import argparse
import os
import shlex
import signal
import socket
import sys
from collections.abc import Sequence

from limbeck_engines.processes import Process
from limbeck_engines.slurm_client import Slurm, own_job
from limbeck_engines.slurm_files import JobSettings
from limbeck_engines.task import Task
from pipeline.common.errors import EXIT_RETRY

_TRAINER = "pipeline.train.train"
_PORT = 29500
_PORTS = 10000  # jobs that share a node get different ones, by their ids


def launch_prefix(settings: JobSettings, task: Task, job_id: str, gpus: int) -> list[str]:
    """What starts a task's command on all nodes of its job; nothing for a job of one node, or a task without it."""
    if nodes_of(settings.nodes, task) == 1:
        return []
    cpus = os.environ.get("SLURM_CPUS_PER_TASK")
    # They meet on this node, the first of the job, where its script runs.
    number = int(job_id) % _PORTS if job_id.isdigit() else 0
    return [
        # Where one node fails, the others get a while to end by themselves, with a code that tells more than a kill.
        *("srun", f"--nodes={settings.nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=0", "--wait=60"),
        *([f"--cpus-per-task={cpus}"] if cpus else []),
        *(sys.executable, "-m", "limbeck_engines.slurm_launch", "--nodes", str(settings.nodes)),
        *("--processes", str(max(gpus, 1)), "--id", f"job-{job_id}"),
        *("--endpoint", f"{socket.gethostname()}:{_PORT + number}"),
        "--",
    ]


class StepProcess(Process):
    """An srun. A SIGTERM that srun itself gets makes it kill its step at once, so the step is told by Slurm."""

    def send(self, number: int) -> None:
        if number == signal.SIGTERM:
            Slurm().signal_steps(own_job(), "TERM")
        else:
            super().send(number)


def nodes_of(nodes: int, task: Task) -> int:
    """How many nodes a task takes where its worker type has so many: training all of them, other tasks one."""
    words = [word for command in task.commands for part in command for word in _words(part)]
    return nodes if _TRAINER in words else 1


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return []


def main(arguments: Sequence[str] | None = None) -> int:
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="limbeck_engines.slurm_launch", description=__doc__)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--processes", type=int, required=True, help="on each node")
    parser.add_argument("--endpoint", required=True, help="HOST:PORT where the nodes meet")
    parser.add_argument("--id", required=True, help="the same on all nodes")
    options = parser.parse_args(words[: words.index("--")])
    command = words[words.index("--") + 1 :]
    config = LaunchConfig(
        min_nodes=options.nodes,
        max_nodes=options.nodes,
        nproc_per_node=options.processes,
        run_id=options.id,
        rdzv_backend="c10d",
        rdzv_endpoint=options.endpoint,
        max_restarts=0,
    )
    try:
        elastic_launch(config, command[0])(*command[1:])
    except SignalException:
        return EXIT_RETRY
    except ChildFailedError as failed:
        codes = [failure.exitcode for failure in failed.failures.values()]
        return EXIT_RETRY if EXIT_RETRY in codes else next((code for code in codes if code > 0), 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
