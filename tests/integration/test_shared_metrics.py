"""Figures of processes that share them: gauges add up over those that live, counts over all; one control group.

Whether figures are shared is settled when the library is imported, so each case is a process of its own.
"""

import os
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from citadel_common.system import cgroup

COUNTED_BY_TWO = """
import multiprocessing, sys
from citadel_common.telemetry import names
from citadel_common.telemetry.prometheus import PrometheusMetrics, forget_process

def work(value, told, stop):
    telemetry = PrometheusMetrics()
    telemetry.count(names.BREAKER_CHANGES, value, backend="main", state="open")
    telemetry.set(names.BREAKERS_OPEN, 9, backend="main")
    telemetry.set(names.BREAKERS_OPEN, value, backend="main")
    told.set()
    stop.wait()

fork = multiprocessing.get_context("fork")
workers = []
for value in (1, 2):
    told, stop = fork.Event(), fork.Event()
    process = fork.Process(target=work, args=(value, told, stop), daemon=True)
    process.start()
    told.wait()
    workers.append((process, stop))
telemetry = PrometheusMetrics()
pages = [telemetry.render("text/plain")[0].decode()]
for process, stop in workers:
    stop.set()
    process.join()
    forget_process(process.pid)
    pages.append(telemetry.render("text/plain")[0].decode())
sys.stdout.write("---".join(pages))
"""
ALONE = """
import sys
from citadel_common.telemetry import names
from citadel_common.telemetry.prometheus import PrometheusMetrics, forget_process

telemetry = PrometheusMetrics()
telemetry.set(names.BREAKERS_OPEN, 2, backend="main")
forget_process(1)
sys.stdout.write(telemetry.render("text/plain")[0].decode())
"""


def pages_of(script: str, **environment: str) -> list[dict[str, list[float]]]:
    """Values of the rows by series, of each page that the script prints."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PROMETHEUS_")}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=inherited | environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [_rows(page) for page in done.stdout.split("---")]


def _rows(page: str) -> dict[str, list[float]]:
    rows: dict[str, list[float]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            rows.setdefault(sample.name, []).append(sample.value)
    return rows


def test_gauges_are_of_those_that_live_and_counts_of_all(tmp_path):
    pages = pages_of(COUNTED_BY_TWO, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    assert [page.get("citadel_breakers_open") for page in pages] == [[3], [2], None]
    assert [page["citadel_breaker_changes_total"] for page in pages] == [[3], [3], [3]]


@pytest.mark.skipif(cgroup.read() is None, reason="no control group is to be seen")
def test_the_cgroup_appears_once(tmp_path):
    for page in pages_of(COUNTED_BY_TWO, PROMETHEUS_MULTIPROC_DIR=str(tmp_path)) + pages_of(ALONE):
        assert len(page["citadel_cgroup_cpu_limit_cores"]) == len(page["citadel_cgroup_memory_limit_bytes"]) == 1


def test_a_process_alone_tells_its_own():
    [page] = pages_of(ALONE)
    assert page["citadel_breakers_open"] == [2]


def test_a_process_that_has_only_just_made_its_file_hides_no_other(tmp_path):
    for kind in ("counter", "gauge_livesum", "histogram"):
        (tmp_path / f"{kind}_1.db").touch()
    [page, *_] = pages_of(COUNTED_BY_TWO, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    assert page["citadel_breakers_open"] == [3]
