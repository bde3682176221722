"""Memory control groups of the kernel with the limits that compose gives its containers."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from tests.deploy.engine import ROOT
from tests.support.polling import eventually
from tests.support.required import lacking

TREE = Path("/sys/fs/cgroup/memory")
"""Version 1 of control groups."""
_UNITS = {"m": 2**20, "g": 2**30}


def limit_of(service: str) -> int:
    """Return the bytes that compose allows a container of a service."""
    limits = yaml.safe_load((ROOT / "compose" / "limits.yaml").read_text())
    text = limits["services"][service]["deploy"]["resources"]["limits"]["memory"]
    return int(text[:-1]) * _UNITS[text[-1]]


class LimitedGroups:
    """A group for each service; what is started within one belongs to it from its first byte on."""

    def __init__(self) -> None:
        if not os.access(TREE, os.W_OK) or not (TREE / "memory.limit_in_bytes").exists():
            lacking("no memory control groups of version 1 can be made here")
        own = re.search(r"^\d+:(?:\w+,)*memory(?:,\w+)*:(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
        self._own = TREE / (own[1].lstrip("/") if own else "")
        self._groups: dict[str, Path] = {}

    @contextmanager
    def within(self, service: str) -> Iterator[None]:
        """Start processes in the group of a service: children begin in the group of their parent."""
        if service not in self._groups:
            group = self._groups[service] = TREE / f"citadel-{os.getpid()}-{service}"
            group.mkdir()
            (group / "memory.limit_in_bytes").write_text(str(limit_of(service)))
        self._move(self._groups[service])
        try:
            yield
        finally:
            self._move(self._own)

    def _move(self, group: Path) -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()))

    def kills(self) -> dict[str, int]:
        """Return how many processes of each service the kernel has killed for memory."""
        texts = {service: (group / "memory.oom_control").read_text() for service, group in self._groups.items()}
        return {service: int(text.partition("oom_kill ")[2].split()[0]) for service, text in texts.items()}

    def most_used(self) -> dict[str, int]:
        """Return the most MiB that each service has used at once."""
        names = {service: group / "memory.max_usage_in_bytes" for service, group in self._groups.items()}
        return {service: int(name.read_text()) // 2**20 for service, name in names.items()}

    def remove(self) -> None:
        """Remove the groups, whose processes have ended."""
        for group in self._groups.values():
            eventually(lambda group=group: not (group / "cgroup.procs").read_text())
            group.rmdir()
