"""What is told of the control group, from trees of files as the kernel shows them."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from citadel_common.telemetry import names
from citadel_common.telemetry.cgroup import CgroupCollector
from tests.unit.common.system.trees import plant, version_1, version_2

MIB = 2**20
STALLS = "some avg10=1.50 avg60=0.25 avg300=0.00 total={}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n"
LIMITED = {
    "cpu.max": "50000 100000\n",
    "cpu.stat": "usage_usec 1500000\nnr_periods 40\nnr_throttled 7\nthrottled_usec 250000\n",
    "memory.max": f"{200 * MIB}\n",
    "memory.current": f"{120 * MIB}\n",
    "cpu.pressure": STALLS.format(2_500_000),
    "memory.pressure": STALLS.format(0),
    "io.pressure": STALLS.format(125_000),
}


def registry_of(root):
    registry = CollectorRegistry()
    registry.register(CgroupCollector(root))
    return registry


def shown(registry):
    """Values by series."""
    lines = generate_latest(registry).decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {series.removeprefix("citadel_cgroup_"): float(value) for series, value in pairs}


def test_limits_use_throttling_and_pressure(tmp_path):
    assert shown(registry_of(version_2(tmp_path, "/", {"": LIMITED}))) == {
        "cpu_limit_cores": 0.5,
        "cpu_seconds_total": 1.5,
        "cpu_periods_total": 40,
        "cpu_throttled_periods_total": 7,
        "memory_bytes": 120 * MIB,
        "memory_limit_bytes": 200 * MIB,
        'pressure_seconds_total{resource="cpu"}': 2.5,
        'pressure_seconds_total{resource="memory"}': 0,
        'pressure_seconds_total{resource="io"}': 0.125,
    }


def test_no_limit_is_zero_and_missing_values_are_left_out(tmp_path):
    bare = {"cpu.max": "max 100000\n", "memory.max": "max\n", "memory.current": f"{MIB}\n"}
    found = shown(registry_of(version_2(tmp_path, "/", {"": bare})))
    assert found == {"cpu_limit_cores": 0, "memory_limit_bytes": 0, "memory_bytes": MIB}


def test_version_1_has_no_pressure(tmp_path):
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "150000\n",
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "cpu,cpuacct/cpu.stat": "nr_periods 10\nnr_throttled 4\nthrottled_time 2500000000\n",
        "cpu,cpuacct/cpuacct.usage": "3000000000\n",
        "memory/memory.limit_in_bytes": f"{64 * MIB}\n",
        "memory/memory.usage_in_bytes": f"{32 * MIB}\n",
    }
    assert shown(registry_of(version_1(tmp_path, "/", files))) == {
        "cpu_limit_cores": 1.5,
        "cpu_seconds_total": 3,
        "cpu_periods_total": 10,
        "cpu_throttled_periods_total": 4,
        "memory_bytes": 32 * MIB,
        "memory_limit_bytes": 64 * MIB,
    }


def test_the_cgroup_is_read_at_each_scrape(tmp_path):
    registry = registry_of(version_2(tmp_path, "/", {"": LIMITED}))
    shown(registry)
    plant(tmp_path, {"sys/fs/cgroup/cpu.stat": "usage_usec 9000000\nnr_periods 60\nnr_throttled 30\n"})
    found = shown(registry)
    assert (found["cpu_seconds_total"], found["cpu_throttled_periods_total"]) == (9, 30)


def test_without_a_cgroup_there_are_no_metrics(tmp_path):
    assert shown(registry_of(tmp_path)) == {}


def test_every_declared_metric_is_described_with_its_kind_and_labels(tmp_path):
    declared = {metric.name: metric for metric in names.METRICS if metric.is_read}
    registry = registry_of(version_2(tmp_path, "/", {"": LIMITED}))
    found = {sample.name: (family, sample) for family in registry.collect() for sample in family.samples}
    assert found.keys() == declared.keys()
    for name, (family, sample) in found.items():
        assert family.type == declared[name].kind
        assert tuple(sample.labels) == declared[name].labels


@pytest.mark.parametrize("broken", ["some\n", "some total=\n", "full avg10=0 total=1\n"])
def test_pressure_that_cannot_be_read_is_left_out(tmp_path, broken):
    found = shown(registry_of(version_2(tmp_path, "/", {"": LIMITED | {"io.pressure": broken}})))
    assert 'pressure_seconds_total{resource="cpu"}' in found
    assert 'pressure_seconds_total{resource="io"}' not in found
