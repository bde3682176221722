"""Impossible values are refused before anything is installed, with a sentence that says what to set."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.k8s.rendering import CHART, package, render

KEDA = {"autoscaling": {"prometheus": {"address": "http://prometheus:9090"}}}


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(package("helm_python").HelmError) as caught:
        render(values)
    return str(caught.value)


def embeddings(**own: Any) -> dict[str, Any]:
    return {"workers": {"embeddings": own}}


def pinned(requests: dict[str, Any], limits: dict[str, Any]) -> dict[str, Any]:
    return embeddings(pinned=True, resources={"requests": requests, "limits": limits})


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            KEDA | embeddings(keda={"enabled": True}, hpa={"enabled": True}),
            "workers.embeddings has keda.enabled and hpa.enabled",
        ),
        (embeddings(keda={"enabled": True}), "needs autoscaling.prometheus.address"),
        (
            KEDA | embeddings(keda={"enabled": True, "minReplicas": 11}),
            "workers.embeddings.keda: minReplicas is above maxReplicas",
        ),
        (
            embeddings(hpa={"enabled": True, "minReplicas": 11}),
            "workers.embeddings.hpa: minReplicas is above maxReplicas",
        ),
        ({"api": {"hpa": {"enabled": True, "minReplicas": 11}}}, "api.hpa: minReplicas is above maxReplicas"),
        (
            {"postgres": {"maxConnections": 100}, "api": {"replicas": 4}},
            (
                "postgres.maxConnections is 100, of which PostgreSQL reserves 3, and the processes may open 176"
                " (api 5 pods x 2 processes x 12, workers.maintenance 2 pods x 10, workers.monitoring 2 pods x 1,"
                " workers.orchestration 3 pods x 10, exporter 2 + migration 2)"
            ),
        ),
        (
            {"postgres": {"maxConnections": 200}, "api": {"hpa": {"enabled": True}}},
            "the processes may open 320 (api 11 pods x 2 processes x 12",
        ),
        (
            KEDA
            | {"postgres": {"maxConnections": 200}}
            | {"workers": {"orchestration": {"keda": {"enabled": True, "maxReplicas": 20}}}},
            "workers.orchestration 21 pods x 10",
        ),
        ({"settings": {"CITADEL_STORAGE__MAX_BYTES": 5}}, "set postgres.maxStoredBytes instead"),
        (pinned({"cpu": "1500m", "memory": "1Gi"}, {"cpu": "1500m", "memory": "1Gi"}), "pinning takes whole cores"),
        (
            pinned({"cpu": 1, "memory": "1Gi"}, {"cpu": 2, "memory": "1Gi"}),
            "requests must equal resources.limits (cpu 2",
        ),
        (
            pinned({"cpu": 2, "memory": "1Gi"}, {"cpu": 2, "memory": "2Gi"}),
            "must equal resources.limits (cpu 2, memory 2Gi)",
        ),
        (embeddings(pinned=True), "give resources.limits.cpu and resources.limits.memory"),
        (embeddings(concurrency=4), "workers.embeddings.batchConcurrency is above its concurrency"),
        (embeddings(settings={"CITADEL_WORKER__STOP_GRACE": 5}), "set stopGrace instead"),
        ({"settings": {"CITADEL_BROKER_URL": "redis://x"}}, "set broker.url instead"),
        ({"settings": {"CITADEL_API__PORT": 81}}, "remove it"),
        ({"settings": {"CITADEL_QDRANT__API_KEY": "x"}}, "put it into the Secret as citadel_qdrant__api_key"),
        ({"settings": {"CITADEL_QDRANT__PROXY": "http://p"}}, "put it into the Secret as citadel_qdrant__proxy"),
        ({"settings": {"HTTPS_PROXY": "http://me:secret@proxy"}}, "put the proxy into the Secret"),
        ({"settings": {"OTEL_EXPORTER_OTLP_HEADERS": "x"}}, "send spans to a collector of yours"),
        ({"api": {"settings": {"CITADEL_API__KEYS": "x"}}}, "put it into the Secret as citadel_api__keys"),
        ({"settings": {"CITADEL_EMBEDDINGS__BACKENDS__a__KIND": "ollama"}}, "set backends instead"),
        ({"settings": {"CITADEL_LLM__ENDPOINTS__a__URL": "http://x"}}, "set llm.endpoints instead"),
        ({"broker": {"url": "redis://mine"}}, "set broker.bundled.enabled=false to use yours"),
        ({"postgres": {"bundled": {"enabled": False}}}, "postgres.dsn is empty: give the URL of a server"),
        ({"qdrant": {"bundled": {"enabled": False}}}, "qdrant.url is empty"),
        ({"cache": {"url": "redis://:secret@mine", "bundled": {"enabled": False}}}, "cache.url holds a password"),
        (
            {"postgres": {"dsn": "postgresql://me:secret@db/x", "bundled": {"enabled": False}}},
            "postgres.dsn holds a password",
        ),
        ({"broker": {"url": "sentinel://a:26379", "bundled": {"enabled": False}}}, "broker.sentinelMaster is empty"),
        (
            KEDA
            | embeddings(keda={"enabled": True, "minReplicas": 0})
            | {"broker": {"url": "sentinel://a", "sentinelMaster": "m", "bundled": {"enabled": False}}},
            "set minReplicas to 1 or more",
        ),
        ({"ollama": {"bundled": {"enabled": False}}}, "backends is empty: give at least one embedding backend"),
        ({"backends": {"ollama": {"kind": "ollama", "urls": ["http://x"]}}}, "give yours another name"),
        ({"backends": {"gpu": {"kind": "ollama"}}}, "backends.gpu.urls is empty"),
        ({"ingress": {"enabled": True}}, "ingress.host is empty"),
        ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs is empty"),
        (
            {"priorityClasses": {"create": True, "serving": 5, "background": 5}},
            "must be above priorityClasses.background",
        ),
    ],
)
def test_impossible_values_are_refused_with_what_to_set(values: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(values)


def test_all_problems_are_reported_at_once() -> None:
    message = refusal({"ingress": {"enabled": True}, "httpRoute": {"enabled": True}})
    assert "ingress.host" in message
    assert "httpRoute.parentRefs" in message


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"worker": {}}, "worker"),
        (embeddings(replica=2), "replica"),
        (embeddings(replicas="two"), "replicas"),
        ({"workers": {"api": {"service": "embeddings"}}}, "api"),
        ({"workers": {"extra": {"replicas": 1}}}, "service"),
        ({"workers": {"extra": {"service": "monitor"}}}, "service"),
        ({"broker": {"url": "http://redis"}}, "broker"),
        ({"settings": {"PATH": "/bin"}}, "PATH"),
        ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
        (embeddings(resources={"limits": {"cpu": "lots"}}), "cpu"),
        ({"backends": {"GPU-1": {"kind": "ollama", "urls": ["http://x"]}}}, "GPU-1"),
        ({"backends": {"gpu": {"kind": "ollama", "urls": ["http://x"], "apiKey": "secret"}}}, "apiKey"),
        (embeddings(hpa={"enabled": True, "minReplicas": 0}), "minReplicas"),
    ],
)
def test_unknown_keys_and_wrong_types_are_refused_by_name(values: dict[str, Any], named: str) -> None:
    assert named in refusal(values)


def test_the_schema_refuses_unknown_keys_everywhere() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    free = [where for where, node in _objects(schema, "") if "additionalProperties" not in node]
    assert free == ["/$defs/kubernetes", "/$defs/objects/items", "/properties/global"]


def _objects(node: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield where, node
        for key in sorted(node):
            yield from _objects(node[key], f"{where}/{key}")


def test_as_many_connections_as_the_server_takes_are_installed() -> None:
    few = {"settings": {"CITADEL_POSTGRES__POOL_SIZE": 4}, "api": {"replicas": 4}}
    render(few | {"postgres": {"maxConnections": 100}})
    assert "may open 86" in refusal(few | {"postgres": {"maxConnections": 80}})


def test_only_the_bundled_server_has_a_budget_of_bytes_by_itself() -> None:
    name = "CITADEL_STORAGE__MAX_BYTES"
    own = {"dsn": "postgresql://citadel@db:5432/citadel", "bundled": {"enabled": False}}
    assert render({}).environment("api")[name] == str(4 * 2**30)
    assert name not in render({"postgres": own}).environment("api")
    assert render({"postgres": own | {"maxStoredBytes": 10**12}}).environment("maintenance")[name] == str(10**12)


def test_the_bundled_server_takes_what_all_processes_may_open() -> None:
    rendered = render({"api": {"hpa": {"enabled": True}}})
    assert "max_connections=323" in rendered.container("postgres")["args"]
    assert "max_connections=200" in render({}).container("postgres")["args"]
