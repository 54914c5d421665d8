"""The disk under the journal: one that a single machine writes to, and with room for what is in flight."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from rlaif.errors import StoreError

# For the answers in flight, the parts under way and the dataset.
RESERVE_BYTES = 64 << 20
# SQLite's WAL needs memory that all its processes share, so one machine. Not here: 9p and virtiofs, through which a
# container or a virtual machine sees a disk of its host.
SHARED = re.compile(
    "afs|beegfs|ceph|cifs|gpfs|lustre|nfs4?|panfs|pvfs2|smb3|smbfs|wekafs|"
    r"fuse\.(ceph(-fuse)?|gcsfuse|glusterfs|juicefs|rclone|s3fs|sshfs)"
)
_MOUNTS = Path("/proc/self/mountinfo")  # Linux


def check_room(folder: Path, *, full: bool = False) -> None:
    """Raises StoreError when the reserve is touched, or when a write has already failed (`full`)."""
    disk = shutil.disk_usage(folder)
    if full or (disk.free < RESERVE_BYTES and disk.total):  # some file systems say 0 of everything
        raise StoreError(
            f"the disk under {folder} is full, or your share of it: {disk.free / 1e6:,.0f} MB are free, and "
            f"{RESERVE_BYTES / 1e6:.0f} MB are kept for the answers under way; make room or use another --runs-dir, "
            "and run the same command again: what was answered is kept"
        )


def refuse_shared(folder: Path) -> None:
    """Raises StoreError where other machines may write too."""
    if _MOUNTS.exists():
        kind = kind_of(folder, _MOUNTS.read_text(errors="surrogateescape"))
        if SHARED.fullmatch(kind):
            raise StoreError(
                f"{folder} is on a network file system ({kind}), where SQLite cannot keep the journal whole when two "
                "machines write to it: name a folder on a local disk with --runs-dir, and copy it when the run is done"
            )


def kind_of(folder: Path, mountinfo: str) -> str:
    """The type of the file system a folder is on, as `mountinfo` lists the mounts; empty if it lists none of it."""
    folder = folder.resolve()
    longest, kind = -1, ""
    for line in mountinfo.splitlines():
        mount, _, source = line.partition(" - ")
        point = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), mount.split(" ")[4]))
        # The last of those at one place hides the others.
        if len(point.parts) >= longest and folder.is_relative_to(point):
            longest, kind = len(point.parts), source.split(" ")[0]
    return kind
