"""Alerts have a runbook, a dashboard, and test cases in which they fire and do not fire."""

import re

import pytest
import yaml

from citadel_common.tasks.stats import BUCKETS
from citadel_contracts import TASKS, Lane
from citadel_contracts.errors import KINDS
from citadel_orchestration.api.http import errors
from tests.unit.observability.files import DASHBOARDS, ROOT, RULE_TESTS, load, rules

ALERTS = rules("alert")
RUNBOOKS = (ROOT / "docs/runbooks.md").read_text()
TESTS = [
    check
    for path in RULE_TESTS
    for test in yaml.safe_load(path.read_text())["tests"]
    for check in test["alert_rule_test"]
]


def _expressions(pattern: str) -> set[str]:
    return {match for rule in rules("record") for match in re.findall(pattern, rule["expr"])}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
class TestAlert:
    def test_has_a_section_in_the_runbooks(self, alert):
        path, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert path == "docs/runbooks.md"
        assert anchor == alert["alert"].lower()
        section = re.search(rf"^## {alert['alert']}$(.*?)(?=^## |\Z)", RUNBOOKS, re.MULTILINE | re.DOTALL)
        assert section
        assert all(f"**{part}**" in section[1] for part in ("Means.", "Look.", "Do."))

    def test_names_a_dashboard_that_exists(self, alert):
        assert alert["annotations"]["dashboard_url"].removeprefix("/d/") in {path.stem for path in DASHBOARDS}

    def test_has_a_severity_and_a_summary(self, alert):
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert alert["annotations"]["summary"]
        assert alert["annotations"]["description"]

    def test_does_not_fire_on_a_single_scrape(self, alert):
        assert alert["for"]

    def test_has_a_case_that_fires_and_one_that_does_not(self, alert):
        outcomes = {bool(check["exp_alerts"]) for check in TESTS if check["alertname"] == alert["alert"]}
        assert outcomes == {True, False}


def test_alert_names_are_unique_and_every_runbook_section_has_an_alert():
    names = [alert["alert"] for alert in ALERTS]
    assert len(set(names)) == len(names)
    assert set(re.findall(r"^## (Citadel\w+)$", RUNBOOKS, re.MULTILINE)) == set(names)


def test_the_failure_ratio_leaves_out_exactly_the_task_errors_with_a_4xx_status():
    of_http = {kind.code for name, kind in vars(errors).items() if name != "CitadelError" and isinstance(kind, type)}
    left_out = "|".join(_expressions(r'code!~"([^"]+)"'))
    assert set(left_out.split("|")) == {code for code, kind in KINDS.items() if kind.status < 500} - of_http


def test_the_wait_objective_leaves_out_exactly_the_tasks_of_the_batch_lane():
    (left_out,) = _expressions(r'task!~"([^"]+)"')
    assert set(left_out.split("|")) == {task.name for task in TASKS if task.lane is Lane.BATCH}


def test_the_wait_objective_is_a_bound_of_a_bucket():
    (bound,) = _expressions(r'le="([^"]+)"')
    assert float(bound) in BUCKETS


def test_prometheus_reads_the_rules_and_keeps_exemplars():
    settings = load("prometheus/prometheus.yml")
    assert settings["rule_files"] == ["/etc/prometheus/rules/*.yml"]
    assert settings["storage"]["exemplars"]["max_exemplars"] > 0


def test_every_replica_of_each_process_is_scraped():
    jobs = {job["job_name"]: job for job in load("prometheus/prometheus.yml")["scrape_configs"]}
    (found,) = jobs["citadel-processes"]["dns_sd_configs"]
    assert set(found["names"]) >= {"embeddings", "orchestration", "monitoring", "maintenance"}
    assert jobs["citadel-exporter"]["static_configs"][0]["targets"] == ["exporter:9808"]
