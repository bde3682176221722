"""What is read of control groups, from trees of files as the kernel shows them."""

import pytest

from citadel_common.system import cgroup
from tests.unit.common.system.trees import plant, version_1, version_2

MIB = 2**20
POD = {
    "cpu.max": "50000 100000\n",
    "cpu.stat": "usage_usec 1500000\nuser_usec 1000000\nnr_periods 40\nnr_throttled 7\nthrottled_usec 250000\n",
    "memory.max": f"{200 * MIB}\n",
    "memory.high": f"{180 * MIB}\n",
    "memory.current": f"{120 * MIB}\n",
    "memory.stat": f"anon {60 * MIB}\ninactive_file {20 * MIB}\n",
    "memory.events": "low 0\nhigh 3\nmax 2\noom 1\noom_kill 1\n",
    "cpu.pressure": "some avg10=1.50 avg60=0.25 avg300=0.00 total=12345\nfull avg10=0.00 avg60=0.00 total=0\n",
    "memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
    "io.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=9\n",
}
BARE = {"cpu.max": "max 100000\n", "memory.max": "max\n", "memory.high": "max\n", "memory.current": f"{MIB}\n"}
V1_POD = {
    "cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
    "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    "cpu,cpuacct/cpu.stat": "nr_periods 10\nnr_throttled 4\nthrottled_time 2500000000\n",
    "cpu,cpuacct/cpuacct.usage": "3000000000\n",
    "memory/memory.limit_in_bytes": f"{200 * MIB}\n",
    "memory/memory.usage_in_bytes": f"{150 * MIB}\n",
    "memory/memory.stat": f"cache {40 * MIB}\ninactive_file 1\ntotal_inactive_file {30 * MIB}\n",
    "memory/memory.failcnt": "5\n",
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
}


def under(group, files):
    """The files of version 1, each in a group of its controller."""
    return {f"{name.partition('/')[0]}{group}/{name.partition('/')[2]}": text for name, text in files.items()}


class TestVersion2:
    def test_a_container_with_a_namespace_of_its_own(self, tmp_path):
        found = cgroup.read(version_2(tmp_path, "/", {"": POD}))
        assert (found.version, found.cpu_limit, found.cpu_seconds) == (2, 0.5, 1.5)
        assert found.throttling == {"periods": 40, "throttled_periods": 7, "throttled_seconds": 0.25}
        assert (found.memory_limit, found.memory_high) == (200 * MIB, 180 * MIB)
        assert (found.memory_current, found.memory_used) == (120 * MIB, 100 * MIB)
        assert found.memory_events == {"low": 0, "high": 3, "max": 2, "oom": 1, "oom_kill": 1}
        assert found.pressure["cpu"]["some"] == {"avg10": 1.5, "avg60": 0.25, "avg300": 0.0, "total": 12345}
        assert found.pressure["cpu"]["full"]["total"] == 0
        assert (found.pressure["memory"]["some"]["total"], found.pressure["io"]["some"]["total"]) == (7, 9)

    def test_the_lowest_limit_of_all_ancestors_counts(self, tmp_path):
        groups = {
            "": {},
            "/slice": {"cpu.max": "150000 100000\n", "memory.max": f"{100 * MIB}\n"},
            "/slice/pod": {"cpu.max": "20000 10000\n", "memory.max": "max\n", "memory.high": f"{90 * MIB}\n"},
            "/slice/pod/own": POD | {"cpu.max": "max 100000\n"},
        }
        found = cgroup.read(version_2(tmp_path, "/slice/pod/own", groups))
        assert found.cpu_limit == 1.5
        assert (found.memory_limit, found.memory_high) == (100 * MIB, 90 * MIB)
        assert found.memory_current == 120 * MIB

    def test_no_limit_is_none(self, tmp_path):
        found = cgroup.read(version_2(tmp_path, "/own", {"": {}, "/own": BARE}))
        assert (found.cpu_limit, found.memory_limit, found.memory_high) == (None, None, None)
        assert (found.throttling, found.pressure, found.memory_events) == (None, {}, {})

    def test_a_path_outside_the_namespace_is_the_mount_itself(self, tmp_path):
        assert cgroup.read(version_2(tmp_path, "/../../other", {"": POD})).cpu_limit == 0.5

    def test_a_part_of_the_hierarchy_mounted_elsewhere(self, tmp_path):
        mount = r"31 23 0:28 /kube/pod /sys/fs/my\040groups ro - cgroup2 cgroup ro" + "\n"
        root = version_2(tmp_path, "/kube/pod/own", {}, mount)
        plant(root, {f"sys/fs/my groups/own/{name}": text for name, text in POD.items()})
        plant(root, {"sys/fs/my groups/cpu.max": "25000 100000\n"})
        found = cgroup.read(root)
        assert (found.cpu_limit, found.memory_limit) == (0.25, 200 * MIB)


class TestVersion1:
    def assert_pod(self, found):
        assert (found.version, found.cpu_limit, found.cpu_seconds) == (1, 0.5, 3.0)
        assert found.throttling == {"periods": 10, "throttled_periods": 4, "throttled_seconds": 2.5}
        assert (found.memory_limit, found.memory_high) == (200 * MIB, None)
        assert (found.memory_current, found.memory_used) == (150 * MIB, 120 * MIB)
        assert found.memory_events == {"max": 5, "oom_kill": 2}

    def test_a_container_that_sees_its_own_group_only(self, tmp_path):
        self.assert_pod(cgroup.read(version_1(tmp_path, "/docker/abc", V1_POD, mounted="/docker/abc")))

    def test_a_process_of_the_host(self, tmp_path):
        self.assert_pod(cgroup.read(version_1(tmp_path, "/docker/abc", under("/docker/abc", V1_POD))))

    def test_the_lowest_limit_of_all_ancestors_counts(self, tmp_path):
        parent = {
            "cpu,cpuacct/cpu.cfs_quota_us": "20000\n",
            "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "memory/memory.limit_in_bytes": f"{64 * MIB}\n",
        }
        files = under("/up", parent) | under("/up/own", V1_POD)
        found = cgroup.read(version_1(tmp_path, "/up/own", files))
        assert (found.cpu_limit, found.memory_limit) == (0.2, 64 * MIB)

    def test_no_limit_is_none(self, tmp_path):
        unlimited = {
            "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
        }
        found = cgroup.read(version_1(tmp_path, "/", V1_POD | unlimited))
        assert (found.cpu_limit, found.memory_limit) == (None, None)

    def test_a_group_that_is_not_mounted_is_the_highest_that_is(self, tmp_path):
        self.assert_pod(cgroup.read(version_1(tmp_path, "/docker/abc", V1_POD, mounted="/docker/xyz")))


@pytest.mark.parametrize(
    "files",
    [{}, {"proc/self/cgroup": "0::/\n"}, {"proc/self/cgroup": "nonsense\n", "proc/self/mountinfo": "x - cgroup\n"}],
    ids=["no proc", "no mount", "nonsense"],
)
def test_a_machine_without_control_groups(tmp_path, files):
    assert cgroup.read(plant(tmp_path, files)) is None


def test_files_that_hold_nonsense_are_passed_over(tmp_path):
    broken = {"cpu.max": "x\n", "memory.max": "\n", "cpu.stat": "usage_usec x\n", "memory.current": "-"}
    found = cgroup.read(version_2(tmp_path, "/", {"": broken}))
    assert (found.cpu_limit, found.memory_limit, found.cpu_seconds, found.memory_used) == (None, None, None, None)


def test_the_result_names_its_units(tmp_path):
    result = cgroup.read(version_2(tmp_path, "/", {"": POD})).as_result()
    assert (result["cpu_limit_cores"], result["memory_limit_bytes"]) == (0.5, 200 * MIB)
    assert result.keys() >= {"version", "throttling", "memory_events", "pressure", "memory_used_bytes"}
