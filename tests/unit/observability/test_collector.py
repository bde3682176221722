"""The collector's configuration: valid by its documentation, and as the other files expect."""

import pytest

from tests.unit.observability.files import load

CONFIG = load("collector.yaml")
PIPELINES = CONFIG["service"]["pipelines"]
POLICIES = CONFIG["processors"]["tail_sampling"]["policies"]
KEYS = {
    "receivers": {
        "otlp": {"protocols"},
        "file_log": {"include", "start_at", "operators"},
        "host_metrics": {"collection_interval", "scrapers"},
    },
    "processors": {
        "memory_limiter": {"check_interval", "limit_percentage", "spike_limit_percentage"},
        "tail_sampling": {"decision_wait", "num_traces", "expected_new_traces_per_sec", "decision_cache", "policies"},
        "batch": {"send_batch_size", "send_batch_max_size", "timeout"},
    },
    "exporters": {
        "otlp_grpc": {"endpoint", "tls", "timeout", "sending_queue", "retry_on_failure"},
        "otlp_http": {"endpoint", "timeout", "sending_queue", "retry_on_failure"},
        "prometheus": {"endpoint"},
    },
    "extensions": {"health_check": {"endpoint"}},
}
"""The used components and their keys, by the documentation of 0.159."""


@pytest.mark.parametrize("part", KEYS)
def test_components_and_their_keys_are_known(part):
    for name, settings in CONFIG[part].items():
        assert set(settings) <= KEYS[part][name.split("/")[0]], name


def test_every_component_is_in_use_and_declared():
    for part in ("receivers", "processors", "exporters"):
        used = {name for pipeline in PIPELINES.values() for name in pipeline[part]}
        assert used == set(CONFIG[part])
    assert set(CONFIG["service"]["extensions"]) == set(CONFIG["extensions"])


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_the_memory_limiter_is_first_and_batching_last(pipeline):
    processors = PIPELINES[pipeline]["processors"]
    assert processors[0] == "memory_limiter"
    assert processors[-1] == "batch"


def test_otlp_and_health_are_reachable_from_other_containers():
    protocols = CONFIG["receivers"]["otlp"]["protocols"]
    assert protocols["grpc"]["endpoint"] == "0.0.0.0:4317"
    assert protocols["http"]["endpoint"] == "0.0.0.0:4318"
    assert CONFIG["extensions"]["health_check"]["endpoint"] == "0.0.0.0:13133"


def test_the_sampler_keeps_errors_slow_traces_and_a_share():
    kinds = {policy["type"]: policy for policy in POLICIES}
    assert kinds["status_code"]["status_code"]["status_codes"] == ["ERROR"]
    assert "latency" in kinds
    assert "probabilistic" in kinds
    assert "drop" not in kinds
    assert not any("invert_match" in str(policy) for policy in POLICIES)


def test_late_spans_follow_their_trace():
    sampling = CONFIG["processors"]["tail_sampling"]
    assert sampling["decision_cache"]["sampled_cache_size"] > sampling["num_traces"]


def test_traces_go_to_tempo_and_logs_to_loki():
    assert CONFIG["exporters"]["otlp_grpc/tempo"]["endpoint"] == "tempo:4317"
    assert CONFIG["exporters"]["otlp_http/loki"]["endpoint"] == "http://loki:3100/otlp"
    assert PIPELINES["traces"]["exporters"] == ["otlp_grpc/tempo"]
    assert PIPELINES["logs"]["exporters"] == ["otlp_http/loki"]


@pytest.mark.parametrize("name", ["otlp_grpc/tempo", "otlp_http/loki"])
def test_exporters_stop_retrying_after_a_while(name):
    exporter = CONFIG["exporters"][name]
    assert exporter["timeout"]
    assert exporter["sending_queue"]["queue_size"] > 0
    assert exporter["retry_on_failure"]["max_elapsed_time"] not in {"0", "0s", 0}


def test_prometheus_scrapes_the_collectors_own_metrics_under_the_queried_names():
    jobs = {job["job_name"]: job for job in load("prometheus/prometheus.yml")["scrape_configs"]}
    (reader,) = CONFIG["service"]["telemetry"]["metrics"]["readers"]
    own = reader["pull"]["exporter"]["prometheus"]
    assert jobs["collector"]["static_configs"][0]["targets"] == [f"otel-collector:{own['port']}"]
    # Without this, its counters have no `_total`.
    assert own["without_type_suffix"] is False
    port = CONFIG["exporters"]["prometheus"]["endpoint"].split(":")[1]
    assert jobs["host"]["static_configs"][0]["targets"] == [f"otel-collector:{port}"]
