"""The exporter's own control group among its metrics."""

import pytest

from citadel_common.system import cgroup
from tests.integration.monitoring.exporter import Exporter


@pytest.mark.skipif(cgroup.read() is None, reason="this process sees no control group")
def test_the_limits_of_the_exporters_control_group_are_metrics(redis_url):
    with Exporter(redis_url) as exporter:
        scrape = exporter.scrape()
    assert scrape.value("cgroup_cpu_limit_cores") >= 0
    assert scrape.value("cgroup_memory_limit_bytes") >= 0
    assert scrape.has("exporter_up")
