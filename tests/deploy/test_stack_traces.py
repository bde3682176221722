"""Traces of the stack in its Tempo, with the configuration that is shipped."""

import json
import re
import uuid

import pytest
import yaml

from tests.deploy.engine import ROOT
from tests.deploy.guide import commands_of
from tests.deploy.load import MODEL, workflow
from tests.deploy.stack import LONG, OWN, Stack
from tests.support.polling import eventually

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(900)]

CALLED = {"citadel-api", "citadel-orchestration", "citadel-embeddings"}
GRAFANA = ROOT / "compose" / "observability" / "grafana"


def finished(stack: Stack) -> str:
    """Return the id of a run that has ended."""
    with stack.client() as citadel:
        run = citadel.workflows.submit(workflow(f"where is the trace {uuid.uuid4()}?"))
        assert run.wait(LONG).status == "succeeded"
    return run.run_id


def found(stack: Stack, run: str) -> set[str]:
    """Wait until Tempo finds a run's trace with spans of all services that it used; return the ids of its traces."""

    def complete() -> dict[str, set[str]] | None:
        traces = stack.spans_of(run)
        return traces if any(services >= CALLED for services in traces.values()) else None

    return set(eventually(complete, LONG))


def test_a_run_is_found_as_one_trace_by_its_id(stack):
    assert len(found(stack, finished(stack))) == 1


def test_a_trace_outlives_a_crash_and_a_stop_of_tempo(stack):
    run = finished(stack)
    traces = found(stack, run)
    (tempo,) = stack.containers("tempo")
    stack.kill(tempo)
    eventually(lambda: stack.containers("tempo")[0]["State"]["StartedAt"] != tempo["State"]["StartedAt"], LONG)
    assert eventually(lambda: _found_again(stack, run), LONG) == traces
    stack.compose("stop", "tempo")
    stack.up()
    assert eventually(lambda: _found_again(stack, run), LONG) == traces


def _found_again(stack: Stack, run: str) -> set[str]:
    try:
        return set(stack.spans_of(run))
    except OSError:
        return set()


def test_the_guides_first_request_is_found_in_tempo(stack, tmp_path):
    """By the guide's own commands; the search is Grafana's, which has no image here."""
    (request,) = [one for one in commands_of("From clone to the first trace")[0] if "/v1/embeddings" in one]
    request = request.replace("localhost:8080", f"localhost:{stack.ports['API']}")
    key = f"CITADEL_API_KEY={stack.secret('api_key')}"
    stack.shell(f"export {key}; {request} >answer.json", tmp_path)
    assert json.loads((tmp_path / "answer.json").read_text())["model"] == MODEL
    query = '{ resource.service.name = "citadel-api" && span.http.route = "/v1/embeddings" }'
    eventually(lambda: stack.search(query), LONG)


def test_grafanas_source_of_traces_is_this_tempo(stack):
    sources = yaml.safe_load((GRAFANA / "provisioning/datasources/citadel.yaml").read_text())["datasources"]
    (tempo,) = [one for one in sources if one["type"] == "tempo"]
    (api,) = stack.containers("api")
    program = f"import urllib.request as http; print(http.urlopen('{tempo['url']}/api/echo', timeout=30).read())"
    assert "echo" in stack.exec(api, "python", "-c", program)


def test_the_metrics_of_spans_that_grafana_shows_reach_prometheus(stack):
    found(stack, finished(stack))
    shown = {name for file in GRAFANA.rglob("*.*") for name in re.findall(r"\btraces_\w+", file.read_text())}
    assert len(shown) > 2
    for name in shown:
        eventually(lambda name=name: stack.get("PROMETHEUS", f"/api/v1/query?query={name}")["data"]["result"], LONG)


def test_every_process_names_itself_in_traces(stack):
    """Each sends spans: workers and API while they work, beat with each task that it publishes."""
    services = {f"citadel-{name}" for name in OWN if name != "exporter"}
    path = "/api/v2/search/tag/resource.service.name/values"
    eventually(lambda: services <= {one["value"] for one in stack.get("TEMPO", path)["tagValues"]}, LONG)
