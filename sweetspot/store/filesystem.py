"""Whether a folder lies on a network file system."""

from pathlib import Path

import psutil

_NETWORK = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "afpfs", "webdav", "lustre", "gpfs", "beegfs", "ceph", "glusterfs",
    "pvfs2", "orangefs", "panfs", "wekafs", "gfs2", "ocfs2", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.ceph",
    "fuse.glusterfs", "fuse.rclone", "fuse.davfs", "fuse.mfs", "fuse.juicefs",
}  # fmt: skip


def network_file_system(folder: Path) -> str | None:
    """The kind of the network file system that a folder lies on; None for a disk of this machine."""
    folder = folder.resolve()
    mounts = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    for place in (folder, *folder.parents):
        if place in mounts:
            return mounts[place] if mounts[place].lower() in _NETWORK else None
    return None
