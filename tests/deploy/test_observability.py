"""The stack's files, checked by the programs that read them.

promtool is in Debian's package `prometheus`. The collector is checked where `otelcol-contrib` or `otelcol` is on the
path, Loki's file where `loki` is.
"""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.required import optional_program, program
from tests.unit.observability.files import RULE_TESTS, RULES, STACK, dashboard_queries, load

PROMETHEUS = STACK / "prometheus"
SECONDS = 120


def run(*command: str | Path, **environment: str) -> str:
    """Run a program, which must succeed; return its output."""
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def promtool() -> str:
    return program("promtool")


@pytest.fixture
def installed(tmp_path) -> Path:
    """Prometheus' file with the rules, and the key of the API, where it looks for them."""
    settings = load("prometheus/prometheus.yml")
    key = tmp_path / "metrics_key"
    key.write_text("a key\n")
    for job in settings["scrape_configs"]:
        if "authorization" in job:
            job["authorization"]["credentials_file"] = str(key)
    settings["rule_files"] = [str(PROMETHEUS / "rules" / "*.yml")]
    path = tmp_path / "prometheus.yml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_prometheus_reads_its_configuration_and_finds_the_rules(promtool, installed):
    report = run(promtool, "check", "config", installed)
    assert report.count("rules found") == len(RULES)


def test_prometheus_accepts_the_rules(promtool):
    run(promtool, "check", "rules", *RULES)


@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_not_otherwise(promtool, path):
    run(promtool, "test", "rules", path)


def test_every_query_of_the_dashboards_parses(promtool, tmp_path):
    """As rules, which promtool parses; Grafana's own variable is a duration."""
    rules = [
        {"record": f"dashboard:query:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, (_, query) in enumerate(dashboard_queries())
    ]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
    run(promtool, "check", "rules", "--lint=none", path)


def test_a_query_that_does_not_parse_is_found(promtool, tmp_path):
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "x", "rules": [{"record": "x:y:z", "expr": "sum by (a"}]}]}))
    with pytest.raises(AssertionError, match="parse"):
        run(promtool, "check", "rules", path)


@pytest.mark.parametrize("percent", ["10", "100"])
def test_the_collector_accepts_its_configuration(percent):
    collector = optional_program("otelcol-contrib", "otelcol")
    run(collector, "validate", "--config", STACK / "collector.yaml", CITADEL_TRACE_PERCENT=percent)


def test_loki_accepts_its_configuration():
    run(optional_program("loki"), "-verify-config", f"-config.file={STACK / 'loki.yaml'}")
