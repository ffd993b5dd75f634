"""Which kind of file system a folder lies on: one of this machine, or one that several machines share."""

import re
from pathlib import Path

_NETWORK = re.compile(
    r"nfs\d?|lustre|gpfs|beegfs\w*|fhgfs|cifs|smb\w*|ceph|glusterfs|panfs|wekafs|pvfs2|orangefs|ocfs2|gfs2|afs|9p|"
    r"fuse(\..+)?|fuseblk"
)


def file_system_type(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> str | None:
    """What Linux calls the file system that a path lies on, such as `ext4` or `nfs4`; None where nobody says."""
    try:
        lines = mountinfo.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    place, found, depth = path.resolve(), None, -1
    for line in lines:
        # 36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/root rw; blanks are written as \040
        before, _, after = line.partition(" - ")
        words, kind = before.split(" "), after.split(" ")[0]
        if len(words) < 5:
            continue
        mount = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), words[4]))
        # Of two on the same point, the later one hides the earlier.
        if place.is_relative_to(mount) and len(mount.parts) >= depth:
            found, depth = kind, len(mount.parts)
    return found


def is_network_file_system(kind: str | None) -> bool:
    """Whether several machines may see files of this type of file system at once."""
    return kind is not None and _NETWORK.fullmatch(kind) is not None
