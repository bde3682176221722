"""Files, monitors, rules and dashboards of the chart are those of the stack in compose/, with the same names."""

import json
import re

import pytest
import yaml

from tests.unit.k8s.network import matches
from tests.unit.k8s.rendering import CHART, ROOT, rendered

STACK = ROOT / "compose" / "observability"
COPIES = [
    *((path, CHART / "files/rules" / path.name) for path in sorted((STACK / "prometheus/rules").glob("*.yml"))),
    *((path, CHART / "files/dashboards" / path.name) for path in sorted((STACK / "grafana/dashboards").glob("*.json"))),
    (ROOT / "compose" / "load-models", CHART / "files/ollama/load-models"),
]


@pytest.mark.parametrize(("original", "copy"), [pytest.param(*pair, id=pair[0].name) for pair in COPIES])
def test_the_charts_copies_are_those_of_the_stack(original, copy) -> None:
    assert copy.read_bytes() == original.read_bytes(), "run scripts/chart"


def test_the_chart_has_no_further_copies() -> None:
    copies = {copy for _, copy in COPIES}
    assert {path for path in (CHART / "files").rglob("*") if path.is_file()} == copies


def test_every_rule_but_the_disabled_ones_is_in_the_prometheus_rule() -> None:
    (made,) = rendered("observability").of("PrometheusRule").values()
    files = [yaml.safe_load(path.read_text()) for path in sorted((STACK / "prometheus/rules").glob("*.yml"))]
    wanted = [rule for file in files for group in file["groups"] for rule in group["rules"]]
    got = [rule for group in made["spec"]["groups"] for rule in group["rules"]]
    assert got == [rule for rule in wanted if rule.get("alert") != "CitadelCollectorDown"]
    names = [group["name"] for group in made["spec"]["groups"]]
    assert len(set(names)) == len(names)


def test_every_dashboard_is_a_config_map_for_grafanas_sidecar() -> None:
    maps = list(rendered("observability").of("ConfigMap").values())
    found = {name: json.loads(text) for one in maps for name, text in one["data"].items()}
    assert found == {path.name: json.loads(path.read_text()) for path in (STACK / "grafana/dashboards").glob("*.json")}
    assert {one["metadata"]["labels"]["grafana_dashboard"] for one in maps} == {"1"}


def monitored() -> dict[str, set[str]]:
    """Return the scraped components by job, if monitor, pod and port match."""
    made, jobs = rendered("observability"), {}
    pods = dict(made.pods())
    services = {name: one["spec"]["selector"] for name, one in made.of("Service").items()}
    for kind, key in (("PodMonitor", "podMetricsEndpoints"), ("ServiceMonitor", "endpoints")):
        for one in made.of(kind).values():
            (endpoint,) = one["spec"][key]
            job = next(rule["replacement"] for rule in endpoint["relabelings"] if rule.get("targetLabel") == "job")
            for component, template in pods.items():
                labels = template["metadata"]["labels"]
                chosen = (
                    matches(one["spec"]["selector"], labels)
                    if kind == "PodMonitor"
                    else services.get(component, {}).items() <= labels.items()
                    and matches(
                        one["spec"]["selector"],
                        made.of("Service").get(component, {"metadata": {"labels": {}}})["metadata"]["labels"],
                    )
                )
                ports = {port["name"] for own in template["spec"]["containers"] for port in own.get("ports", ())}
                if chosen and endpoint["port"] in ports:
                    jobs.setdefault(job, set()).add(component)
    return jobs


def test_every_process_is_scraped_once_under_the_job_that_the_alerts_name() -> None:
    assert monitored() == {
        "citadel-processes": {"embeddings", "orchestration", "monitoring", "maintenance", "beat"},
        "citadel-api": {"api"},
        "citadel-exporter": {"exporter"},
    }
    alerts = (STACK / "prometheus/rules/alerts.yml").read_text()
    named = {job for text in re.findall(r'job=~?"([^"]+)"', alerts) for job in text.split("|")}
    assert named - {"collector"} == set(monitored())


def test_the_apis_metrics_are_scraped_with_a_key_of_scope_read() -> None:
    (endpoint,) = rendered("observability").of("PodMonitor")["api"]["spec"]["podMetricsEndpoints"]
    credentials = endpoint["authorization"]["credentials"]
    (secret,) = rendered("observability").of("Secret").values()
    assert credentials == {"name": secret["metadata"]["name"], "key": "metrics_key"}
    assert "metrics_key" in secret["data"]


def test_monitors_carry_the_labels_that_the_operator_looks_for() -> None:
    for kind in ("PodMonitor", "ServiceMonitor", "PrometheusRule"):
        for one in rendered("observability").of(kind).values():
            assert one["metadata"]["labels"]["release"] == "prometheus"


def test_no_monitor_rule_or_dashboard_is_rendered_when_switched_off() -> None:
    kinds = {one["kind"] for one in rendered("observability-off").resources}
    assert not kinds & {"PodMonitor", "ServiceMonitor", "PrometheusRule", "ConfigMap"}
    for component, _ in rendered("observability-off").pods():
        if component in {"api", "embeddings"}:
            assert not [one for one in rendered("observability-off").environment(component) if one.startswith("OTEL_")]


def test_traces_go_to_the_endpoint_with_the_pods_name() -> None:
    environment = rendered("observability").environment("beat")
    assert environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://otel-collector.observability:4317"
    assert environment["OTEL_EXPORTER_OTLP_PROTOCOL"] == "grpc"
    assert environment["OTEL_TRACES_SAMPLER_ARG"] == "0.1"
    assert environment["OTEL_RESOURCE_ATTRIBUTES"] == "k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(POD_NAME)"
    names = [one["name"] for one in rendered("observability").container("beat")["env"]]
    assert names.index("POD_NAME") < names.index("OTEL_RESOURCE_ATTRIBUTES")
