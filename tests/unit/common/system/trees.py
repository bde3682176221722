"""Directory trees as the kernel shows control groups, of both versions."""

from collections.abc import Mapping
from pathlib import Path

V2_MOUNT = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNTS = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct ro,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 {root} /sys/fs/cgroup/memory ro,nosuid shared:10 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
V1_MEMBERSHIPS = "9:name=systemd:{path}\n4:memory:{path}\n2:cpu,cpuacct:{path}\n0::{path}\n"


def plant(root: Path, files: Mapping[str, str]) -> Path:
    """Write files below a root, which is returned."""
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def version_2(root: Path, path: str, groups: Mapping[str, Mapping[str, str]], mount: str = V2_MOUNT) -> Path:
    """A tree of version 2: the process's path, and files by group."""
    proc = {"proc/self/cgroup": f"0::{path}\n", "proc/self/mountinfo": mount}
    files = {f"sys/fs/cgroup{group}/{name}": text for group, held in groups.items() for name, text in held.items()}
    return plant(root, proc | files)


def version_1(root: Path, path: str, files: Mapping[str, str], *, mounted: str = "/") -> Path:
    """A tree of version 1: the process's path, files below /sys/fs/cgroup, and what part of it is mounted."""
    proc = {
        "proc/self/cgroup": V1_MEMBERSHIPS.format(path=path),
        "proc/self/mountinfo": V1_MOUNTS.format(root=mounted),
    }
    return plant(root, proc | {f"sys/fs/cgroup/{name}": text for name, text in files.items()})
