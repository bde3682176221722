"""Statistics of the machine: of the limits if there are limits, with the host's beside them."""

import psutil
import pytest

from citadel_common.system.cgroup import Cgroup
from citadel_monitoring.machine import GIB, CpuUse, Machine, cpu_metrics, memory_metrics
from citadel_monitoring.settings import MonitoringFragment
from tests.unit.common.system.trees import version_2

MIB = 2**20
HALF = Cgroup(version=2, cpu_limit=0.5, memory_limit=200 * MIB, memory_used=50 * MIB)


def test_cpu_use_is_in_percent_of_the_quota():
    cpu = cpu_metrics(CpuUse(host_percent=80.0, group_cores=0.25), HALF)
    assert (cpu["core_count"], cpu["usage_percent"]) == (0.5, 50.0)
    assert (cpu["host_core_count"], cpu["host_usage_percent"]) == (psutil.cpu_count(), 80.0)


def test_cpu_use_without_a_control_group_is_of_the_host():
    cpu = cpu_metrics(CpuUse(host_percent=80.0, group_cores=None), None)
    assert (cpu["core_count"], cpu["usage_percent"]) == (psutil.cpu_count(), 80.0)
    assert isinstance(cpu["core_count"], int)


def test_a_cpu_quota_above_the_host_has_no_effect():
    cpu = cpu_metrics(CpuUse(host_percent=10.0, group_cores=0.0), Cgroup(version=2, cpu_limit=10_000.0))
    assert cpu["core_count"] <= psutil.cpu_count()


def test_memory_use_is_in_percent_of_the_limit():
    memory = memory_metrics(HALF)
    assert memory["total_gb"] * GIB == 200 * MIB
    assert memory["available_gb"] * GIB == 150 * MIB
    assert memory["usage_percent"] == 25.0
    assert memory["host_total_gb"] * GIB == psutil.virtual_memory().total


@pytest.mark.parametrize("group", [None, Cgroup(version=2), Cgroup(version=1, memory_limit=2**60)])
def test_memory_use_without_a_limit_is_of_the_host(group):
    memory = memory_metrics(group)
    assert memory["total_gb"] == memory["host_total_gb"]
    assert memory["usage_percent"] == memory["host_usage_percent"]


def test_memory_over_the_limit_leaves_nothing_available():
    memory = memory_metrics(Cgroup(version=1, memory_limit=100, memory_used=120))
    assert (memory["available_gb"], memory["usage_percent"]) == (0, 120.0)


@pytest.fixture
def limited(tmp_path):
    """Return the root of a machine on which the process has half a processor and 200 MiB."""
    files = {"cpu.max": "50000 100000", "memory.max": str(200 * MIB), "memory.current": str(50 * MIB)}
    return version_2(tmp_path, "/", {"": files})


def test_stats_are_within_the_limits_of_the_control_group(limited):
    stats = Machine(MonitoringFragment(cpu_sample=0.01), limited).stats(at_most=0.01)
    assert stats["memory_percent"] == 25.0
    assert stats["memory_available_gb"] * GIB == 150 * MIB
    assert stats.keys() == {
        "cpu_percent", "memory_percent", "memory_available_gb", "disk_percent", "disk_free_gb",
    }  # fmt: skip


def test_stats_are_of_the_host_when_the_setting_says_so(limited):
    stats = Machine(MonitoringFragment(cpu_sample=0.01, cgroup=False), limited).stats(at_most=0.01)
    assert stats["memory_available_gb"] * GIB != 150 * MIB
