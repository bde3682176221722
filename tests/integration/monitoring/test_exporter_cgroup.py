"""The exporter tells of its own control group too, beside what it tells of the platform."""

import pytest

from citadel_common.system import cgroup
from tests.integration.monitoring.exporter import Exporter


@pytest.mark.skipif(cgroup.read() is None, reason="no control group is to be seen")
def test_the_control_group_is_told(redis_url):
    with Exporter(redis_url) as exporter:
        scrape = exporter.scrape()
    assert scrape.value("cgroup_cpu_limit_cores") >= 0
    assert scrape.value("cgroup_memory_limit_bytes") >= 0
    assert scrape.has("exporter_up")
