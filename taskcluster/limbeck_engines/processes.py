"""The processes of tasks: started in a session of their own, stopped as a whole, never left behind."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil


class Guardian:
    """Kills the tasks of this engine if the engine dies before it has stopped them."""

    def __init__(self) -> None:
        # -I -S: a bare interpreter, which starts fast and takes little memory.
        command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("guardian.py"))]
        self._popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
        )

    def watch(self, group: int) -> None:
        self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        self._tell(f"-{group}\n")

    def close(self) -> None:
        """Let it go; it kills what it still watches."""
        assert self._popen.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._popen.stdin.close()
        self._popen.wait()

    def _tell(self, line: str) -> None:
        assert self._popen.stdin is not None
        # Without a guardian, the next engine finds what is left (see recovery.py).
        with contextlib.suppress(BrokenPipeError):
            os.write(self._popen.stdin.fileno(), line.encode())


class Process:
    """One running command and all that it starts. Lives in an event loop's thread."""

    def __init__(
        self,
        argv: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        log: int,
        inherited: Sequence[int],
        guardian: Guardian,
    ) -> None:
        """Start it; output goes to the descriptor `log`. Raises OSError when the program cannot be started."""
        self._guardian = guardian
        # No preexec_fn: without one the system need not copy the engine's memory map for every task.
        self._popen = subprocess.Popen(
            argv,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=inherited,
        )
        self.pid = self._popen.pid
        guardian.watch(self.pid)
        self.created = psutil.Process(self.pid).create_time()

    async def wait(self) -> int:
        """Wait for its end; what it started itself and left running is killed. Returns 0-255, or minus a signal."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # not Linux, or one that does not know of process descriptors
            with ThreadPoolExecutor(1) as thread:
                code = await asyncio.get_running_loop().run_in_executor(thread, self._popen.wait)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self._guardian.forget(self.pid)
            return code
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        # Before it is waited for: until then nobody else can get its number.
        self.send(signal.SIGKILL)
        self._guardian.forget(self.pid)
        return self._popen.wait()

    def send(self, number: int) -> None:
        """Send a signal to the command and all that it started."""
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)


def kill_orphans(recorded: Collection[tuple[int, float, str]]) -> int:
    """Kill what is left of tasks whose engine is dead; returns the number of processes killed.

    `recorded` holds for each task its command's process number, its creation time (as psutil gives it) and the task
    id. A process number may be someone else's by now: a process is ours when its session's leader is the recorded one,
    or when that is gone and the process carries the task's id in its environment.
    """
    sessions = {pid: task_id for pid, _, task_id in recorded}
    certain = {pid for pid, created, _ in recorded if _is_leader(pid, created)}
    victims = []
    for process in psutil.process_iter() if sessions else []:
        try:
            session = os.getsid(process.pid)
            if session in certain or (session in sessions and process.environ().get("TASK_ID") == sessions[session]):
                process.kill()
                victims.append(process)
        except (psutil.Error, OSError):
            continue
    deadline = time.monotonic() + 10
    while any(_is_alive(process) for process in victims) and time.monotonic() < deadline:
        time.sleep(0.005)
    return len(victims)


def _is_alive(process: psutil.Process) -> bool:
    # A dead one whose new parent has not taken note of it yet is as good as gone.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _is_leader(pid: int, created: float) -> bool:
    # The clock may have been set since: creation times are counted from the time of boot that it gives.
    with contextlib.suppress(psutil.Error):
        return abs(psutil.Process(pid).create_time() - created) < 2
    return False
