"""Answers of the exporter's WSGI application."""

from prometheus_client.parser import text_string_to_metric_families

from citadel_monitoring.exporter.collector import PlatformCollector
from citadel_monitoring.exporter.metrics import WORKERS, Sample
from citadel_monitoring.exporter.server import application
from citadel_monitoring.exporter.sources import Source
from tests.unit.monitoring.exporter.scrapes import get


def failing():
    raise OSError("down")


def app_of(*sources):
    return application(PlatformCollector(sources))


def test_metrics_are_those_of_sources_that_answer():
    app = app_of(
        Source("bad", failing, timeout=60), Source("good", lambda: [Sample(WORKERS, ("embeddings",), 2)], timeout=60)
    )
    status, body = get(app, "/metrics")
    assert status == "200 OK"
    found = {family.name: family.samples for family in text_string_to_metric_families(body)}
    assert [sample.value for sample in found["citadel_queue_workers"]] == [2]
    assert {sample.labels["source"]: sample.value for sample in found["citadel_exporter_up"]} == {"bad": 0, "good": 1}


def test_openmetrics_is_supported():
    body = get(app_of(), "/metrics", HTTP_ACCEPT="application/openmetrics-text; version=1.0.0")[1]
    assert body.endswith("# EOF\n")


def test_livez_reads_no_source():
    readings = []
    status, _ = get(app_of(Source("a", lambda: readings.append(1) or [], timeout=60)), "/livez")
    assert (status, readings) == ("200 OK", [])


def test_other_paths_give_404():
    assert get(app_of(), "/")[0] == "404 Not Found"
