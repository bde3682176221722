"""Links from metrics to traces, from traces to logs and metrics, and from logs to traces."""

from tests.unit.observability.catalogue import FOREIGN
from tests.unit.observability.files import load
from tests.unit.observability.queries import metrics_of

SOURCES = {source["type"]: source for source in load("grafana/provisioning/datasources/citadel.yaml")["datasources"]}
UIDS = {source["uid"] for source in SOURCES.values()}


def test_uids_are_fixed_and_one_source_is_the_default():
    assert {"citadel-prometheus", "citadel-tempo", "citadel-loki"} == UIDS
    assert [source["type"] for source in SOURCES.values() if source.get("isDefault")] == ["prometheus"]


def test_exemplars_lead_to_traces():
    links = SOURCES["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert ("trace_id", SOURCES["tempo"]["uid"]) in {(link["name"], link["datasourceUid"]) for link in links}


def test_traces_lead_to_logs_and_metrics():
    tempo = SOURCES["tempo"]["jsonData"]
    assert tempo["tracesToLogsV2"]["datasourceUid"] == SOURCES["loki"]["uid"]
    # Grafana replaces `$name` in provisioning files by the environment's; `$$` is what is left for itself.
    assert 'trace_id="$${__trace.traceId}"' in tempo["tracesToLogsV2"]["query"]
    assert tempo["tracesToMetrics"]["datasourceUid"] == SOURCES["prometheus"]["uid"]
    assert tempo["serviceMap"]["datasourceUid"] == SOURCES["prometheus"]["uid"]


def test_logs_lead_to_traces():
    fields = SOURCES["loki"]["jsonData"]["derivedFields"]
    assert [(field["matcherRegex"], field["datasourceUid"]) for field in fields] == [
        ("trace_id", SOURCES["tempo"]["uid"])
    ]


def test_queries_of_a_span_use_the_metrics_that_tempo_writes():
    for query in SOURCES["tempo"]["jsonData"]["tracesToMetrics"]["queries"]:
        assert metrics_of(query["query"]) <= FOREIGN["tempo"]


def test_every_data_source_names_the_port_of_its_server():
    ports = {
        "tempo": load("tempo.yaml")["server"]["http_listen_port"],
        "loki": load("loki.yaml")["server"]["http_listen_port"],
    }
    for name, port in ports.items():
        assert SOURCES[name]["url"] == f"http://{name}:{port}"
