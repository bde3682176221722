"""Tempo's and Loki's configuration: only known keys, because unknown ones stop them at their start."""

from typing import Any

import pytest

from tests.unit.observability.files import load

ANY = object()
TEMPO = {
    "target": ANY,
    "shutdown_delay": ANY,
    "stream_over_http_enabled": ANY,
    "server": {"http_listen_port": ANY, "grpc_listen_port": ANY, "log_level": ANY},
    "distributor": {"receivers": {"otlp": {"protocols": {"grpc": {"endpoint": ANY}, "http": {"endpoint": ANY}}}}},
    "storage": {"trace": {"backend": ANY, "wal": {"path": ANY}, "local": {"path": ANY}}},
    "backend_scheduler": {"provider": {"compaction": {"compaction": {"block_retention": ANY}}}},
    "backend_worker": {"finish_on_shutdown_timeout": ANY, "compaction": {"block_retention": ANY}},
    "metrics_generator": {
        "metrics_ingestion_time_range_slack": ANY,
        "registry": {"external_labels": ANY},
        "storage": {"path": ANY, "remote_write": ANY},
    },
    "overrides": {
        "defaults": {
            "metrics_generator": {"processors": ANY, "max_active_series": ANY},
            "global": {"max_bytes_per_trace": ANY},
        }
    },
    "usage_report": {"reporting_enabled": ANY},
}
"""Keys of Tempo 3, which has no `ingester` and no `compactor`."""
LOKI = {
    "auth_enabled": ANY,
    "server": {"http_listen_port": ANY, "grpc_listen_port": ANY, "log_level": ANY},
    "common": {
        "instance_addr": ANY,
        "path_prefix": ANY,
        "replication_factor": ANY,
        "ring": {"kvstore": {"store": ANY}},
        "storage": {"filesystem": {"chunks_directory": ANY, "rules_directory": ANY}},
    },
    "schema_config": {"configs": ANY},
    "limits_config": {
        "allow_structured_metadata": ANY,
        "retention_period": ANY,
        "max_query_lookback": ANY,
        "reject_old_samples_max_age": ANY,
        "max_line_size": ANY,
        "max_line_size_truncate": ANY,
        "ingestion_rate_mb": ANY,
        "ingestion_burst_size_mb": ANY,
    },
    "compactor": {"working_directory": ANY, "retention_enabled": ANY, "delete_request_store": ANY},
    "analytics": {"reporting_enabled": ANY},
}


def unknown(settings: Any, schema: Any, where: str = "") -> list[str]:
    """Return the paths of keys that the schema does not have."""
    if schema is ANY:
        return []
    return [
        path
        for key, value in settings.items()
        for path in (unknown(value, schema[key], f"{where}{key}.") if key in schema else [where + key])
    ]


@pytest.mark.parametrize(("name", "schema"), [("tempo.yaml", TEMPO), ("loki.yaml", LOKI)])
def test_no_key_is_unknown(name, schema):
    assert unknown(load(name), schema) == []


@pytest.mark.parametrize("name", ["tempo.yaml", "loki.yaml"])
def test_usage_reports_to_vendors_are_off(name):
    settings = load(name)
    assert (settings.get("usage_report") or settings["analytics"])["reporting_enabled"] is False


def test_tempo_listens_beyond_loopback():
    protocols = load("tempo.yaml")["distributor"]["receivers"]["otlp"]["protocols"]
    assert [protocol["endpoint"] for protocol in protocols.values()] == ["0.0.0.0:4317", "0.0.0.0:4318"]


def test_tempo_keeps_everything_on_its_volume():
    tempo = load("tempo.yaml")
    trace = tempo["storage"]["trace"]
    paths = [trace["wal"]["path"], trace["local"]["path"], tempo["metrics_generator"]["storage"]["path"]]
    assert all(path.startswith("/var/tempo/") for path in paths)


def test_tempo_makes_graph_and_span_metrics_and_sends_exemplars_to_prometheus():
    tempo = load("tempo.yaml")
    assert tempo["overrides"]["defaults"]["metrics_generator"]["processors"] == ["service-graphs", "span-metrics"]
    (target,) = tempo["metrics_generator"]["storage"]["remote_write"]
    assert target["url"] == "http://prometheus:9090/api/v1/write"
    assert target["send_exemplars"] is True


def test_tempo_counts_spans_that_the_collector_has_held():
    wait = load("collector.yaml")["processors"]["tail_sampling"]["decision_wait"]
    assert wait == "${env:CITADEL_TRACE_WAIT:-30s}"
    assert load("tempo.yaml")["metrics_generator"]["metrics_ingestion_time_range_slack"] == "2m"


def test_loki_takes_trace_ids_as_metadata_and_forgets():
    loki = load("loki.yaml")
    assert loki["limits_config"]["allow_structured_metadata"] is True
    assert loki["compactor"]["retention_enabled"] is True
    assert loki["compactor"]["delete_request_store"] == "filesystem"
    assert loki["schema_config"]["configs"][-1]["schema"] == "v13"


def test_loki_keeps_everything_on_its_volume():
    loki = load("loki.yaml")
    folders = [loki["common"]["path_prefix"], loki["compactor"]["working_directory"]]
    folders += loki["common"]["storage"]["filesystem"].values()
    assert all(folder.startswith("/loki") for folder in folders)
