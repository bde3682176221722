"""Statistics of processors, memory and disk, within the limits of the worker's control group if it has any."""

import socket
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from citadel_common.settings.common import available_cpus
from citadel_common.system import cgroup
from citadel_common.system.cgroup import Cgroup
from citadel_common.timestamps import utc_now
from citadel_contracts.monitoring import (
    CpuMetrics,
    DiskMetrics,
    MemoryMetrics,
    SystemMetrics,
    SystemStats,
)
from citadel_monitoring.settings import MonitoringFragment

GIB = 1024**3
_ANYWHERE = ("192.0.2.1", 9)
"""An address reserved for documentation. Connecting a UDP socket to it only looks up a route; nothing is sent."""


@dataclass(frozen=True, kw_only=True)
class CpuUse:
    """Processor use over a span of time: in percent of the host's, and in processors of the control group."""

    host_percent: float
    group_cores: float | None


class Machine:
    """The machine that the worker runs on; thread-safe.

    Args:
        settings: What to measure.
        root: Directory in which `/proc` and the control groups are mounted.
    """

    def __init__(self, settings: MonitoringFragment, root: Path = Path("/")) -> None:
        self._settings = settings
        self._root = root

    def metrics(self) -> SystemMetrics:
        """Return all statistics; takes `cpu_sample` seconds."""
        use = self._cpu_use(self._settings.cpu_sample)
        group = self._group()
        return {
            "timestamp": utc_now(),
            "server_ip": server_ip(),
            "cpu_metrics": cpu_metrics(use, group),
            "memory_metrics": memory_metrics(group),
            "disk_metrics": self._disk(),
            "cgroup": group.as_result() if group else None,
        }

    def stats(self, *, at_most: float) -> SystemStats:
        """Return the most important statistics; takes `cpu_sample` seconds, at most `at_most`."""
        use, group = self._cpu_use(min(self._settings.cpu_sample, at_most)), self._group()
        memory, disk = memory_metrics(group), self._disk()
        return {
            "cpu_percent": cpu_metrics(use, group)["usage_percent"],
            "memory_percent": memory["usage_percent"],
            "memory_available_gb": memory["available_gb"],
            "disk_percent": disk["usage_percent"],
            "disk_free_gb": disk["free_gb"],
        }

    def _group(self) -> Cgroup | None:
        return cgroup.read(self._root) if self._settings.cgroup else None

    def _cpu_use(self, seconds: float) -> CpuUse:
        before, started = self._cpu_seconds(), time.monotonic()
        percent = psutil.cpu_percent(interval=seconds)
        after, elapsed = self._cpu_seconds(), time.monotonic() - started
        cores = None if before is None or after is None else max(0.0, after - before) / elapsed
        return CpuUse(host_percent=percent, group_cores=cores)

    def _cpu_seconds(self) -> float | None:
        group = self._group()
        return group.cpu_seconds if group else None

    def _disk(self) -> DiskMetrics:
        disk = psutil.disk_usage(str(self._settings.disk_path))
        return {"total_gb": disk.total / GIB, "free_gb": disk.free / GIB, "usage_percent": disk.used / disk.total * 100}


def cpu_metrics(use: CpuUse, group: Cgroup | None) -> CpuMetrics:
    """Return the use of processors in percent of the limit if there is one, else of the host."""
    host_count = psutil.cpu_count() or 1
    limit = core_limit(group, host_count)
    percent = use.host_percent
    if limit < host_count and use.group_cores is not None:
        percent = round(use.group_cores / limit * 100, 1)
    return {
        "usage_percent": percent,
        "core_count": int(limit) if limit == int(limit) else limit,
        "load_average": psutil.getloadavg(),
        "host_usage_percent": use.host_percent,
        "host_core_count": host_count,
    }


def core_limit(group: Cgroup | None, host_count: int) -> float:
    """Return the processors usable at once: the least of the host's, those of the CPU affinity, and the quota."""
    if group is None:
        return float(host_count)
    return min(float(host_count), float(available_cpus()), group.cpu_limit or float("inf"))


def memory_metrics(group: Cgroup | None) -> MemoryMetrics:
    """Return the use of memory within the limit if there is one. `available_gb` is at most what the host has left."""
    host = psutil.virtual_memory()
    total, available, percent = host.total, host.available, host.percent
    if group and group.memory_limit is not None and group.memory_limit < host.total:
        total, used = group.memory_limit, group.memory_used or 0
        available, percent = min(available, max(0, total - used)), round(used / total * 100, 1)
    return {
        "total_gb": total / GIB,
        "available_gb": available / GIB,
        "usage_percent": percent,
        "host_total_gb": host.total / GIB,
        "host_available_gb": host.available / GIB,
        "host_usage_percent": host.percent,
    }


def server_ip() -> str:
    """Return the address from which this machine reaches others; the loopback address if it has no route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ANYWHERE)
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
