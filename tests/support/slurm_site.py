"""A folder of runs on a Slurm for tests, and what tests ask of it."""

import time
from collections.abc import Callable
from pathlib import Path

import slugid
from slurm_cluster import SlurmCluster

from limbeck_engines.slurm import SlurmEngine
from limbeck_engines.store import TaskRow
from limbeck_engines.task import Task

PROFILE = "defaults: {memory: 100MB}\nsignal-seconds: 20\n"
# Trains one update a tenth of a second; told to stop, it writes a checkpoint and wants to go on later.
TRAINING = """
at=$LIMBECK_CHECKPOINTS/update
update=$(cat $at 2>/dev/null || echo 0)
echo "starts at $update"
trap 'echo $update > $at; echo saved; exit 75' TERM
while [ $update -lt {updates} ]; do sleep 0.1; update=$((update + 1)); done
echo $update > artifacts/model
"""


class Site:
    """A folder of runs, its engine, and the cluster that it lies on."""

    def __init__(self, folder: Path, cluster: SlurmCluster, profile: str = PROFILE) -> None:
        self.folder, self.cluster = folder, cluster
        # As those of real groups are: Slurm remembers the jobs of earlier tests.
        self.group = slugid.nice()
        (folder / "profile.yml").write_text(profile)
        self.engine = SlurmEngine(folder / "runs", folder / "profile.yml", poll=0.2)

    def run(self, *tasks: Task) -> None:
        self.engine.submit(self.group, "name", list(tasks), "")
        self.engine.run(self.group)

    def row(self, label: str) -> TaskRow:
        return next(row for row in self.engine.status(self.group).tasks if row.label == label)

    def states(self) -> dict[str, str]:
        return {row.label: row.state for row in self.engine.status(self.group).tasks}

    def log(self, label: str) -> str:
        return "".join(self.engine.log_lines(label))

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float = 40) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}: {self.engine.status(self.group).tasks}"
            time.sleep(0.1)

    def wait_for_log(self, label: str, text: str, run: int = 0) -> None:
        path = self.engine.store.layout.run(label, run) / "live.log"
        self.wait_for(lambda: path.exists() and text in path.read_text(), f"{text} of {label}")

    def start_now(self, label: str) -> None:
        """Shorten Slurm's pause before a job that is queued again; what is left of it must be gone, though."""
        job = self.row(label).job or ""
        self.wait_for(lambda: self.squeue(job) == "PENDING", "the requeue")
        time.sleep(1.5)
        assert self.cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now").returncode == 0

    def squeue(self, job: str, field: str = "%T") -> str:
        return self.cluster.run("squeue", "--noheader", f"--format={field}", f"--jobs={job}").stdout.strip()
