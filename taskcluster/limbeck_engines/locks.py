"""Locks between processes, as locked files: the system frees them when the last process that holds one is gone."""

import fcntl
import os
import time
from pathlib import Path


class FileLock:
    """An exclusive lock that a child process may hold on to (`descriptor` is what it inherits)."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self.descriptor = path, descriptor

    @classmethod
    def acquire(cls, path: Path, patience: float = 0.0) -> "FileLock | None":
        """The lock, or None when someone else still has it after so many seconds."""
        path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + patience
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                if time.monotonic() >= deadline:
                    return None
                time.sleep(0.02)
                continue
            # The holder before us removes the file: what we have locked must be what others will open.
            try:
                if os.stat(path).st_ino == os.fstat(descriptor).st_ino:  # noqa: PTH116
                    return cls(path, descriptor)
            except FileNotFoundError:
                pass
            os.close(descriptor)

    def release(self) -> None:
        # Removing the file frees the lock even if a process that the task left behind inherited the descriptor.
        self._path.unlink(missing_ok=True)
        os.close(self.descriptor)
