"""A real Slurm on this machine for tests: munged, slurmctld and some slurmd, on loopback, with GPUs that are none.

Needs root and Debian's packages: apt-get install -y --no-install-recommends slurm-wlm munge
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

NODES = ("n1", "n2", "n3", "n4")
_PROGRAMS = ("sbatch", "slurmctld", "slurmd", "munged")
_CONFIG = """
ClusterName=limbeck
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=0
SwitchType=switch/none
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=20000,bf_interval=1,batch_sched_delay=0,requeue_setup_env_fail
GresTypes=gpu
MaxArraySize=1001
MaxJobCount=20000
KillWait=5
MinJobAge={min_job_age}
SlurmdTimeout=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
{nodes}
PartitionName=main Nodes=n[1-4] Default=YES State=UP MaxTime=INFINITE
PartitionName=short Nodes=n[1-4] State=UP MaxTime=1
"""
_GRES = "AutoDetect=off\nNodeName=n[1-2] Name=gpu Flags=nvidia_gpu_env File={folder}/nvidia[0-1]\n"


def missing() -> str | None:
    """Why no cluster can be started here, as one sentence; None when it can."""
    if os.geteuid() != 0:
        return "a Slurm for tests needs root"
    programs = [name for name in _PROGRAMS if shutil.which(name) is None]
    if programs:
        return f"not installed: {', '.join(programs)} (apt-get install --no-install-recommends slurm-wlm munge)"
    return None if os.path.ismount("/sys/fs/cgroup") else "slurmd needs /sys/fs/cgroup"


class SlurmCluster:
    """Four nodes of 4 processors; n1 and n2 have two GPUs each. `stop` ends what it started, and nothing else."""

    def __init__(self, folder: Path, min_job_age: int = 300) -> None:
        self.folder = folder
        self.config = folder / "slurm.conf"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "state").mkdir(parents=True)
        port, *ports = _free_ports(1 + len(NODES))
        nodes = [
            f"NodeName={name} NodeHostname={_host()} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=16000"
            + (" Gres=gpu:2" if name in ("n1", "n2") else "")
            for name, port in zip(NODES, ports, strict=True)
        ]
        self.config.write_text(
            _CONFIG.format(host=_host(), port=port, folder=folder, nodes="\n".join(nodes), min_job_age=min_job_age)
        )
        (folder / "gres.conf").write_text(_GRES.format(folder=folder))
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        for number in range(2):
            os.mknod(folder / f"nvidia{number}", 0o20666, os.makedev(1, 3))

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.config)}

    def start(self) -> None:
        self._start_munge()
        self.start_controller()
        for name in NODES:
            self.start_node(name)
        self._wait(
            lambda: set(self.run("sinfo", "--Node", "--noheader", "--format=%T").stdout.split()) == {"idle"},
            "the nodes",
        )

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        names = {name: self.folder / f"munge.{name}" for name in ("socket", "pid-file", "log-file", "seed-file")}
        options = [f"--{name}={path}" for name, path in names.items()]
        self._spawn("munged", ["munged", "--foreground", "--force", f"--key-file={key}", *options])
        self._wait(names["socket"].exists, "munged")

    def start_controller(self) -> None:
        self._spawn("slurmctld", ["slurmctld", "-D", "-f", str(self.config)])
        self._wait(lambda: self.run("scontrol", "ping").returncode == 0, "slurmctld")

    def start_node(self, name: str) -> None:
        self._spawn(name, ["slurmd", "-D", "-N", name, "-f", str(self.config)])

    def kill(self, name: str) -> None:
        """kill -9 `slurmctld`, or a node's slurmd together with all that runs on it."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()
        for pid in self._pids_of(name) if name in NODES else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _pids_of(self, node: str) -> list[int]:
        """The processes of the jobs on a node: slurmd gives them SLURMD_NODENAME; its stepds have its configuration."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                environment = (entry / "environ").read_bytes().split(b"\0")
                ours = f"SLURM_CONF={self.config}".encode() in environment
                if ours and f"SLURMD_NODENAME={node}".encode() in environment:
                    found.append(int(entry.name))
                    continue
                title = (entry / "cmdline").read_bytes()
                if title.startswith(b"slurmstepd: [") and self._is_step_of(int(entry.name), node):
                    found.append(int(entry.name))
        return found

    def _is_step_of(self, pid: int, node: str) -> bool:
        # A stepd keeps its socket in its node's spool folder, and its log open.
        names = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        return str(self.folder / f"slurmd-{node}.log") in names

    def stop(self) -> None:
        for node in [name for name in NODES if name in self._processes]:
            self.kill(node)
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, **self.environment}
        )

    def _spawn(self, name: str, command: list[str]) -> None:
        with (self.folder / f"{name}.out").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, **self.environment}, start_new_session=True
            )

    def _wait(self, ready: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline:
                logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.out"))
                raise RuntimeError(f"{what} did not start:\n{logs}")
            time.sleep(0.05)


def _host() -> str:
    return socket.gethostname().partition(".")[0]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
