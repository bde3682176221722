"""Processes in memory control groups of the kernel with the limits that compose gives their containers."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml

from tests.deploy.engine import ROOT
from tests.support.required import lacking

GROUPS = Path("/sys/fs/cgroup/memory")
"""Version 1 of control groups: there a process brings the memory along that it has already."""
_UNITS = {"m": 2**20, "g": 2**30}


def limit_of(service: str) -> int:
    """Return the bytes that compose allows a container of a service."""
    limits = yaml.safe_load((ROOT / "compose" / "limits.yaml").read_text())
    text = limits["services"][service]["deploy"]["resources"]["limits"]["memory"]
    number, unit = re.fullmatch(r"(\d+)([mg])", text).groups()
    return int(number) * _UNITS[unit]


@contextmanager
def limited(processes: Mapping[int, str]) -> Iterator[dict[str, Path]]:
    """Hold processes to the limits of their services; yield the groups by service.

    Args:
        processes: Names of services by process id.
    """
    if not os.access(GROUPS, os.W_OK) or not (GROUPS / "memory.limit_in_bytes").exists():
        lacking("no memory control groups of version 1 can be made here")
    groups = {service: GROUPS / f"citadel-{os.getpid()}-{service}" for service in set(processes.values())}
    try:
        for service, group in groups.items():
            group.mkdir()
            (group / "memory.move_charge_at_immigrate").write_text("3")
            (group / "memory.limit_in_bytes").write_text(str(limit_of(service)))
        for pid, service in processes.items():
            (groups[service] / "cgroup.procs").write_text(str(pid))
        yield groups
    finally:
        for group in groups.values():
            for pid in (group / "cgroup.procs").read_text().split():
                (GROUPS / "cgroup.procs").write_text(pid)
            group.rmdir()


def kills(group: Path) -> int:
    """Return how many processes of a group the kernel has killed for memory."""
    found = re.search(r"^oom_kill (\d+)$", (group / "memory.oom_control").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def most_used(group: Path) -> int:
    """Return the most bytes that a group has used at once."""
    return int((group / "memory.max_usage_in_bytes").read_text())
