"""Limits, usage, throttling and pressure of the process's own cgroup, as the kernel reports them.

A limit is the lowest of the group's own and of all its ancestors'.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from citadel_common.system import hierarchy
from citadel_common.system.hierarchy import Group

_ROOT = Path("/")
_UNLIMITED = 2**60
"""Version 1 writes "no limit" as the largest number of whole pages."""
_RESOURCES = ("cpu", "memory", "io")


@dataclass(frozen=True, kw_only=True)
class Cgroup:
    """The state of a cgroup at one moment; None for what is not limited or not reported.

    Attributes:
        version: Of the interface, 1 or 2.
        cpu_limit: Processors that it may use at once; a fraction.
        cpu_seconds: Processor time used so far, in seconds.
        throttling: `periods`, `throttled_periods`, `throttled_seconds` so far.
        memory_limit: Bytes it may use.
        memory_high: Bytes above which the kernel slows it down and reclaims memory.
        memory_current: Bytes it uses, the page cache included.
        memory_used: Bytes it uses, without the cache that the kernel reclaims first.
        memory_events: How often limits were met, by the kernel's names (`high`, `max`, `oom`, `oom_kill`).
        pressure: Stall statistics of `cpu`, `memory` and `io`: `some` and `full`, each with `avg10`, `avg60` and
            `avg300` in percent and `total` in microseconds.
    """

    version: int
    cpu_limit: float | None = None
    cpu_seconds: float | None = None
    throttling: Mapping[str, float] | None = None
    memory_limit: int | None = None
    memory_high: int | None = None
    memory_current: int | None = None
    memory_used: int | None = None
    memory_events: Mapping[str, int] = field(default_factory=dict)
    pressure: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)

    def as_result(self) -> dict[str, Any]:
        """Return the form that task results have."""
        return {
            "version": self.version,
            "cpu_limit_cores": self.cpu_limit,
            "throttling": self.throttling,
            "memory_limit_bytes": self.memory_limit,
            "memory_high_bytes": self.memory_high,
            "memory_current_bytes": self.memory_current,
            "memory_used_bytes": self.memory_used,
            "memory_events": dict(self.memory_events),
            "pressure": dict(self.pressure),
        }


def read(root: Path = _ROOT) -> Cgroup | None:
    """Read limits and usage of the process's cgroup; None if it has no cgroup.

    Where both versions are mounted, the controllers are with version 1.

    Args:
        root: Directory that holds `/proc` and the mounts.
    """
    first = hierarchy.version_1(root)
    if {"cpu", "memory"} & first.keys():
        return _version_1(first)
    group = hierarchy.version_2(root)
    return None if group is None else _version_2(group)


def _version_2(group: Group) -> Cgroup:
    own = group.own
    cpu, current = _table(own / "cpu.stat"), _number(own / "memory.current")
    return Cgroup(
        version=2,
        cpu_limit=_lowest(_quota(_words(folder / "cpu.max")) for folder in group.chain()),
        cpu_seconds=cpu["usage_usec"] / 1e6 if "usage_usec" in cpu else None,
        throttling=_throttling(cpu, "throttled_usec", 1e6),
        memory_limit=_lowest(_number(folder / "memory.max") for folder in group.chain()),
        memory_high=_lowest(_number(folder / "memory.high") for folder in group.chain()),
        memory_current=current,
        memory_used=_without_cache(current, _table(own / "memory.stat").get("inactive_file", 0)),
        memory_events=_table(own / "memory.events"),
        pressure={name: stall for name in _RESOURCES if (stall := _pressure(own / f"{name}.pressure"))},
    )


def _version_1(groups: Mapping[str, Group]) -> Cgroup:
    cpu, memory = groups.get("cpu"), groups.get("memory")
    used = _number(groups["cpuacct"].own / "cpuacct.usage") if "cpuacct" in groups else None
    current = _number(memory.own / "memory.usage_in_bytes") if memory else None
    return Cgroup(
        version=1,
        cpu_limit=_lowest(map(_quota_1, cpu.chain())) if cpu else None,
        cpu_seconds=None if used is None else used / 1e9,
        throttling=_throttling(_table(cpu.own / "cpu.stat"), "throttled_time", 1e9) if cpu else None,
        memory_limit=_lowest(map(_memory_limit_1, memory.chain())) if memory else None,
        memory_current=current,
        memory_used=_without_cache(current, _table(memory.own / "memory.stat").get("total_inactive_file", 0))
        if memory
        else None,
        memory_events=_events_1(memory.own) if memory else {},
    )


def _quota(words: list[str]) -> float | None:
    """Return the processors that `cpu.max` allows: quota and period are in microseconds."""
    if len(words) != 2 or not words[0].isdigit() or not int(words[1]):
        return None
    return int(words[0]) / int(words[1])


def _quota_1(folder: Path) -> float | None:
    return _quota(_words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us"))


def _memory_limit_1(folder: Path) -> int | None:
    limit = _number(folder / "memory.limit_in_bytes")
    return None if limit is None or limit >= _UNLIMITED else limit


def _events_1(folder: Path) -> dict[str, int]:
    """Return memory events by their names in version 2, as far as version 1 has them."""
    met, killed = _number(folder / "memory.failcnt"), _table(folder / "memory.oom_control").get("oom_kill")
    return {name: count for name, count in (("max", met), ("oom_kill", killed)) if count is not None}


def _throttling(stat: Mapping[str, int], time: str, unit: float) -> dict[str, float] | None:
    if "nr_periods" not in stat:
        return None
    return {
        "periods": stat["nr_periods"],
        "throttled_periods": stat.get("nr_throttled", 0),
        "throttled_seconds": stat.get(time, 0) / unit,
    }


def _without_cache(current: int | None, cache: int) -> int | None:
    return None if current is None else max(0, current - cache)


def _pressure(path: Path) -> dict[str, dict[str, float]]:
    lines = (line.split() for line in _lines(path))
    return {words[0]: dict(_pairs(words[1:])) for words in lines if words}


def _pairs(words: Iterable[str]) -> Iterator[tuple[str, float]]:
    """Return the numbers of words `name=number`."""
    for name, _, value in (word.partition("=") for word in words):
        with suppress(ValueError):
            yield name, float(value)


def _lowest(limits: Iterable[float | None]) -> Any:
    return min((limit for limit in limits if limit is not None), default=None)


def _table(path: Path) -> dict[str, int]:
    """Return the numbers of a file with lines `name number`."""
    pairs = (line.split() for line in _lines(path))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _number(path: Path) -> int | None:
    """Return the number in a file; None for `max` and for a missing file."""
    words = _words(path)
    return int(words[0]) if words and words[0].isdigit() else None


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: Path) -> list[str]:
    """Return the lines of a file; none if it cannot be read, since not every kernel has every file."""
    try:
        return path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
