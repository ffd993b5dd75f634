from pathlib import Path

import pytest

from limbeck_engines import store as store_module
from limbeck_engines.file_systems import file_system_type, is_network_file_system
from limbeck_engines.store import Store

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 0:40 / /home rw - nfs4 server:/home rw,vers=4.2
31 22 0:41 / /lustre\\040one/work rw shared:9 - lustre mgs@tcp:/work rw,flock
32 30 0:42 / /home/me/local rw - xfs /dev/sdb rw
33 22 0:43 / /over rw - ext4 /dev/sdc rw
34 22 0:44 / /over rw - fuse.sshfs host:/ rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "kind", "network"),
    [
        ("/tmp/runs", "ext4", False),
        ("/home/me/runs", "nfs4", True),
        ("/homes/runs", "ext4", False),
        ("/home/me/local/runs", "xfs", False),
        ("/lustre one/work/runs", "lustre", True),
        ("/over/runs", "fuse.sshfs", True),
    ],
)
def test_the_innermost_mount_says_what_a_folder_lies_on(tmp_path: Path, path: str, kind: str, network: bool) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS)
    found = file_system_type(Path(path), tmp_path / "mountinfo")
    assert (found, is_network_file_system(found)) == (kind, network)


def test_a_system_without_mountinfo_does_not_say(tmp_path: Path) -> None:
    assert file_system_type(tmp_path, tmp_path / "none") is None
    assert not is_network_file_system(None)


@pytest.mark.parametrize("kind", ["nfs", "beegfs", "gpfs", "cifs", "smb3", "ceph", "fuse", "fuse.gocryptfs"])
def test_what_several_machines_may_see(kind: str) -> None:
    assert is_network_file_system(kind)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "apfs"])
def test_what_one_machine_sees(kind: str) -> None:
    assert not is_network_file_system(kind)


def test_the_record_on_a_network_file_system_does_without_shared_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(tmp_path).close()
    monkeypatch.setattr(store_module, "file_system_type", lambda path: "nfs4")
    store = Store(tmp_path)  # one that was written on a disk before
    store.add_group("g", "name", "", [])
    assert store._connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
    assert not list(tmp_path.glob("*-wal")) and not list(tmp_path.glob("*-shm"))
