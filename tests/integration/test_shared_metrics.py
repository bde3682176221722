"""Metrics that processes share: gauges add up over live processes, counters over all; the control group appears once.

The library decides at its import whether metrics are shared, so each case runs in another process.
"""

import os
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from citadel_common.system import cgroup
from tests.support.child import ROOT


def pages_of(processes: int, **environment: str) -> list[dict[str, list[float]]]:
    """Return the values by series of each page that processes print which count together."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PROMETHEUS_")}
    command = [sys.executable, "-m", "tests.support.programs.count_in_processes", str(processes)]
    done = subprocess.run(
        command, cwd=ROOT, env=inherited | environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return [_rows(page) for page in done.stdout.split("---")]


def _rows(page: str) -> dict[str, list[float]]:
    rows: dict[str, list[float]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            rows.setdefault(sample.name, []).append(sample.value)
    return rows


def test_gauges_add_up_over_live_processes_and_counters_over_all(tmp_path):
    pages = pages_of(2, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    assert [page.get("citadel_breakers_open") for page in pages] == [[3], [2], None]
    assert [page["citadel_breaker_changes_total"] for page in pages] == [[3], [3], [3]]


@pytest.mark.skipif(cgroup.read() is None, reason="no control group is to be seen")
def test_the_control_group_appears_once(tmp_path):
    for page in pages_of(2, PROMETHEUS_MULTIPROC_DIR=str(tmp_path)) + pages_of(1):
        assert len(page["citadel_cgroup_cpu_limit_cores"]) == len(page["citadel_cgroup_memory_limit_bytes"]) == 1


def test_a_single_process_shows_its_own_gauges():
    [page] = pages_of(1)
    assert page["citadel_breakers_open"] == [2]


def test_an_empty_file_of_a_starting_process_hides_no_other_process(tmp_path):
    for kind in ("counter", "gauge_livesum", "histogram"):
        (tmp_path / f"{kind}_1.db").touch()
    [page, *_] = pages_of(2, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    assert page["citadel_breakers_open"] == [3]
