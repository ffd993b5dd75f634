import fcntl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from limbeck_engines.locks import FileLock


def acquire(path: Path, patience: float = 0.0) -> FileLock:
    lock = FileLock.acquire(path, patience)
    assert lock is not None
    return lock


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "locks/digest.lock"


def test_one_holder_at_a_time(path: Path) -> None:
    lock = acquire(path)
    assert FileLock.acquire(path) is None
    assert FileLock.acquire(path, patience=0.05) is None
    lock.release()
    assert not path.exists()
    acquire(path).release()


def test_a_child_holds_on_to_it_until_it_is_released(path: Path) -> None:
    lock = acquire(path)
    with subprocess.Popen(["sleep", "30"], pass_fds=[lock.descriptor]) as child:
        lock.release()
        acquire(path).release()
        child.kill()


def test_a_file_that_its_last_holder_removed_is_no_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening the file and locking it, the holder before us may remove it."""
    real, raced = fcntl.flock, []

    def flock(descriptor: int, operation: int) -> None:
        if not raced:
            raced.append(descriptor)
            path.unlink()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = acquire(path)
    assert FileLock.acquire(path) is None
    lock.release()
