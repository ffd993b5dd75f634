"""The processes of tasks: started in a session of their own, stopped as a whole, never left behind."""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class Process:
    """One running command. Lives in an event loop's thread, and on Linux dies with that thread."""

    def __init__(
        self, argv: Sequence[str], folder: Path, environment: Mapping[str, str], log: int, inherited: Sequence[int] = ()
    ) -> None:
        """Start it; output goes to the descriptor `log`. Raises OSError when the program cannot be started."""
        self._popen = subprocess.Popen(
            argv,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=inherited,
            preexec_fn=_dies_with(os.getpid()),
        )
        self.pid = self._popen.pid
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
        return self._popen.wait()

    def send(self, number: int) -> None:
        """Send a signal to the command and all that it started."""
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)


def _dies_with(parent: int) -> Callable[[], None] | None:
    if _libc is None:
        return None

    def ask_for_signal() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os.kill(os.getpid(), signal.SIGKILL)

    return ask_for_signal


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
