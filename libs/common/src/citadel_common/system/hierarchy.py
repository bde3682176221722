"""The cgroup directories of this process, of either version.

Sources: the kernel's documentation of cgroup v1 and v2; proc(5) for mountinfo.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_V2 = "cgroup2"
_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, kw_only=True)
class Group:
    """A control group as a directory.

    Attributes:
        own: The process's own group.
        top: The highest of its ancestors that can be seen, perhaps itself.
    """

    own: Path
    top: Path

    def chain(self) -> Iterator[Path]:
        """Yield the own group and its ancestors, upwards."""
        yield self.own
        if self.own != self.top:
            yield from Group(own=self.own.parent, top=self.top).chain()


@dataclass(frozen=True, kw_only=True)
class _Mount:
    """A mounted hierarchy: its part `root` is visible at `point`, with these controllers."""

    kind: str
    root: str
    point: str
    controllers: frozenset[str]

    def group(self, path: str, root: Path) -> Group:
        """Return the group of that path in the hierarchy, or its highest visible ancestor."""
        top = root / self.point.lstrip("/")
        inside = self.root in ("/", path) or path.startswith(f"{self.root}/")
        own = top / path.removeprefix(self.root).lstrip("/") if inside and ".." not in path else top
        return Group(own=own if own.is_dir() else top, top=top)


def version_1(root: Path) -> dict[str, Group]:
    """Return the groups by controller (`cpu`, `cpuacct`, `memory`); empty without hierarchies of version 1."""
    mounts, groups = _mounts(root), {}
    for _, controllers, path in _memberships(root):
        for name in filter(None, controllers.split(",")):
            mount = next((mount for mount in mounts if mount.kind == "cgroup" and name in mount.controllers), None)
            if mount is not None:
                groups[name] = mount.group(path, root)
    return groups


def version_2(root: Path) -> Group | None:
    """Return the group in the unified hierarchy; None if there is none."""
    mount = next((mount for mount in _mounts(root) if mount.kind == _V2), None)
    path = next((path for number, _, path in _memberships(root) if number == "0"), None)
    return None if mount is None or path is None else mount.group(path, root)


def _memberships(root: Path) -> list[tuple[str, str, str]]:
    """Return hierarchy number, controllers and path of each line of /proc/self/cgroup."""
    lines = _text(root / "proc/self/cgroup").splitlines()
    parts = (line.split(":", 2) for line in lines)
    return [(found[0], found[1], found[2]) for found in parts if len(found) == 3]


def _mounts(root: Path) -> list[_Mount]:
    halves = (line.partition(" - ") for line in _text(root / "proc/self/mountinfo").splitlines())
    fields = ((before.split(), after.split()) for before, _, after in halves)
    return [_mount(*each) for each in fields if len(each[0]) > 4 and each[1][:1] in (["cgroup"], [_V2])]


def _mount(before: list[str], after: list[str]) -> _Mount:
    options = after[2].split(",") if len(after) > 2 else []
    return _Mount(
        kind=after[0], root=_unescaped(before[3]), point=_unescaped(before[4]), controllers=frozenset(options)
    )


def _unescaped(path: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), path)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
