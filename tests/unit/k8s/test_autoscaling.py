"""Workers scale on ready and unacknowledged messages; busy ones are kept."""

import pytest

from citadel_common.delivery.queues import lists_of
from citadel_contracts import Queue
from citadel_monitoring.exporter import metrics
from tests.unit.k8s.rendering import render, rendered
from tests.unit.observability.queries import matched_labels, metrics_of

PROMETHEUS = {"prometheus": {"address": "http://prometheus:9090"}}


def scaled(name: str = "keda") -> dict[str, dict]:
    return {component: one["spec"] for component, one in rendered(name).of("ScaledObject").items()}


def triggers(component: str, kind: str) -> list[dict]:
    return [one for one in scaled()[component]["triggers"] if one["type"] == kind]


def test_each_worker_with_keda_gets_one_scaled_object() -> None:
    assert set(scaled()) == {"embeddings", "orchestration", "monitoring"}
    assert "HorizontalPodAutoscaler" not in {one["kind"] for one in rendered("keda").resources}
    assert scaled()["embeddings"]["scaleTargetRef"] == {"name": "citadel-embeddings"}


def test_the_backlog_query_sums_ready_and_unacknowledged_messages() -> None:
    for component in scaled():
        (trigger,) = triggers(component, "prometheus")
        query = trigger["metadata"]["query"]
        assert metrics_of(query) == {metrics.READY.name, metrics.UNACKED.name}
        assert f'queue="{component}"' in query
        assert 'namespace="citadel"' in query
        assert {label for _, label in matched_labels(query)} == {"queue", "namespace"}
        assert set(metrics.READY.labels) == {"queue", "lane"}


def test_a_missing_metric_does_not_count_as_zero() -> None:
    for spec in scaled().values():
        (trigger,) = [one for one in spec["triggers"] if one["type"] == "prometheus"]
        assert trigger["metadata"]["ignoreNullValues"] == "false"
        assert spec["fallback"]["replicas"] >= 1
        assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"


def test_from_zero_the_first_message_of_any_lane_wakes_a_worker() -> None:
    lists = [one["metadata"]["listName"] for one in triggers("embeddings", "redis")]
    assert lists == lists_of(Queue.EMBEDDINGS)
    for trigger in triggers("embeddings", "redis"):
        assert trigger["metadata"]["address"] == "citadel-broker:6379"
        assert trigger["metadata"]["activationListLength"] == "0"
        # Never a reason for a second replica: how many is the backlog's to say.
        assert int(trigger["metadata"]["listLength"]) > 10**6
    (authentication,) = rendered("keda").of("TriggerAuthentication").values()
    assert authentication["spec"]["secretTargetRef"][0]["key"] == "citadel_broker_password"


def test_with_a_replica_always_there_the_broker_is_left_alone() -> None:
    assert triggers("orchestration", "redis") == []


def test_an_external_broker_is_asked_with_its_user_database_and_tls() -> None:
    broker = {"url": "rediss://citadel@broker.example.org/3", "bundled": {"enabled": False}}
    worker = {"keda": {"enabled": True, "minReplicas": 0}}
    made = render({"autoscaling": PROMETHEUS, "broker": broker, "workers": {"embeddings": worker}})
    metadata = made.of("ScaledObject")["embeddings"]["spec"]["triggers"][1]["metadata"]
    assert metadata["address"] == "broker.example.org:6379"
    assert (metadata["username"], metadata["databaseIndex"], metadata["enableTLS"]) == ("citadel", "3", "true")


@pytest.mark.parametrize(
    "behavior",
    [
        pytest.param(
            lambda: scaled()["embeddings"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"], id="keda"
        ),
        pytest.param(lambda: rendered("hpa").of("HorizontalPodAutoscaler")["embeddings"]["spec"]["behavior"], id="hpa"),
    ],
)
def test_scaling_down_goes_one_by_one_after_a_calm_and_up_at_once(behavior) -> None:
    down, up = behavior()["scaleDown"], behavior()["scaleUp"]
    assert down["stabilizationWindowSeconds"] >= 300
    assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 60}]
    assert up["stabilizationWindowSeconds"] == 0


def test_the_hpa_takes_cpu_or_custom_metrics() -> None:
    scalers = rendered("hpa").of("HorizontalPodAutoscaler")
    assert set(scalers) == {"api", "embeddings", "orchestration"}
    assert scalers["api"]["spec"]["metrics"][0]["resource"]["name"] == "cpu"
    assert scalers["embeddings"]["spec"]["metrics"][0]["type"] == "External"
    assert not rendered("hpa").of("ScaledObject")


def test_no_autoscaler_is_rendered_by_default() -> None:
    kinds = {one["kind"] for one in rendered("default").resources}
    assert not kinds & {"ScaledObject", "HorizontalPodAutoscaler", "TriggerAuthentication"}


def test_matchers_of_the_backlog_may_be_left_out() -> None:
    values = {
        "autoscaling": {"prometheus": {**PROMETHEUS["prometheus"], "matchers": ""}},
        "workerDefaults": {"keda": {"enabled": True}},
    }
    query = render(values).of("ScaledObject")["embeddings"]["spec"]["triggers"][0]["metadata"]["query"]
    assert 'citadel_queue_unacked_messages{queue="embeddings"}' in query
