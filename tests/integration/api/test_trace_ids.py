"""Trace ids in bodies, by which runs, tasks and errors are found in Tempo; and which requests begin a trace."""

import hashlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.doubles.otlp.receiver import OtlpReceiver
from tests.doubles.otlp.spans import ReceivedSpan
from tests.integration.api.stack import MODEL, Stack, embedding, open_stack
from tests.support.fixtures import require_redis
from tests.support.polling import eventually
from tests.support.postgres_server import PostgresProcess

KEYS = {"all": ("read", "submit", "admin"), "hurried": ("read",), "reader": ("read",)}
PER_MINUTE = 900
RATIOS = {"GET /v1/runs/{run_id}": 0, "GET /v1/queues": 0, "GET /v1/workers": 1}
FORBIDDEN = {"authorization": "Bearer reader"}


@dataclass(kw_only=True)
class Traced:
    """A stack, and the receiver of its spans."""

    stack: Stack
    receiver: OtlpReceiver

    def span(self, name: str, trace_id: str) -> ReceivedSpan:
        """Wait for the span of that name in a trace."""
        return eventually(lambda: next(iter(self.spans(name, trace_id)), None))

    def spans(self, name: str, trace_id: str) -> list[ReceivedSpan]:
        """Return the spans of that name in a trace so far."""
        return [span for span in self.receiver.spans if span.name == name and span.trace_id == trace_id]

    def settle(self) -> None:
        """Wait for the span of a request; those of earlier requests have come by then, for the API is one process."""
        answer = self.stack.http.get("/v1/workers")
        self.span("GET /v1/workers", answer.headers["x-request-id"])


@pytest.fixture(scope="module")
def traced(postgres_server: PostgresProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    """A traced stack with keys and small limits, in which no poll begins a trace."""
    require_redis()
    keys = [
        {"name": name, "hash": hashlib.sha256(name.encode()).hexdigest(), "scopes": scopes}
        for name, scopes in KEYS.items()
    ]
    api = {"KEYS": keys, "TRACE_RATIOS": RATIOS, "RATE_PER_MINUTE": PER_MINUTE, "MAX_BODY_BYTES": 4000}
    settings = {f"API__{name}": json.dumps(value) for name, value in api.items()}
    with OtlpReceiver() as receiver, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        log = tmp_path_factory.mktemp("api") / "log"
        with open_stack(postgres_server, log, key="all", **settings) as stack:
            yield Traced(stack=stack, receiver=receiver)


def trace_id_in(answer: httpx.Response) -> Any:
    """Return the trace id in the body of an error."""
    body = answer.json()
    if "error" in body and "title" in body:  # a problem document that holds OpenAI's form
        assert body["error"]["trace_id"] == body["trace_id"]
    return body["error"]["trace_id"] if "title" not in body else body["trace_id"]


ERRORS: dict[str, tuple[int, str, str, dict[str, Any]]] = {
    "no key": (401, "GET", "/v1/runs", {"headers": {"authorization": ""}}),
    "no key, OpenAI": (401, "POST", "/v1/embeddings", {"headers": {"authorization": ""}, "json": {"input": "a"}}),
    "no scope": (403, "GET", "/v1/dead-letters/x", {"headers": FORBIDDEN, "method": "DELETE"}),
    "no route": (404, "GET", "/v1/nothing", {}),
    "no route, OpenAI": (404, "GET", "/v1/models/none/at/all", {}),
    "no run": (404, "GET", f"/v1/runs/{uuid.uuid4()}", {}),
    "no task": (404, "GET", "/v1/tasks/none", {}),
    "other method": (405, "PUT", "/v1/workflows", {}),
    "other method, OpenAI": (405, "PUT", "/v1/embeddings", {}),
    "no JSON": (400, "POST", "/v1/workflows", {"content": b"{", "headers": {"content-type": "application/json"}}),
    "too large": (413, "POST", "/v1/workflows", {"json": {"context": "x" * 5000}}),
    "too large, OpenAI": (413, "POST", "/v1/embeddings", {"json": {"input": "x" * 5000}}),
    "other media type": (415, "POST", "/v1/workflows", {"content": b"a", "headers": {"content-type": "text/html"}}),
    "invalid": (422, "POST", "/v1/workflows", {"json": {"steps": 3}}),
    "invalid, both forms": (422, "POST", "/v1/embeddings/tasks", {"json": {"text": 3}}),
    "invalid, OpenAI": (400, "POST", "/v1/embeddings", {"json": {"input": 3}}),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_names_its_trace_in_its_body(traced: Traced, kind: str) -> None:
    status, method, path, sent = ERRORS[kind]
    answer = traced.stack.http.request(**{"method": method, "url": path} | sent)
    assert answer.status_code == status, answer.text
    assert trace_id_in(answer) == answer.headers["x-request-id"]


def test_a_refusal_by_the_rate_limit_names_its_trace(traced: Traced) -> None:
    hurried = {"authorization": "Bearer hurried"}
    refused = (traced.stack.http.get("/v1/nothing", headers=hurried) for _ in range(PER_MINUTE + 1))
    answer = next(answer for answer in refused if answer.status_code == 429)
    assert trace_id_in(answer) == answer.headers["x-request-id"]


def test_a_run_and_the_error_of_its_step_name_the_trace_of_the_submission(traced: Traced) -> None:
    bad = {"step_id": "bad", "type": "llm_query", "parameters": {"query": "${{ context.none }}"}}
    submitted = traced.stack.http.post("/v1/workflows", json={"context": {}, "steps": [bad]})
    trace_id = submitted.headers["x-request-id"]
    path = submitted.headers["location"]
    run = traced.stack.ended(path)
    assert (run["status"], run["trace_id"], run["error"]["trace_id"]) == ("failed", trace_id, trace_id)
    assert run["steps"][0]["error"]["trace_id"] == trace_id
    assert traced.stack.http.get(f"{path}/steps/bad").json()["error"]["trace_id"] == trace_id
    listed = {each["run_id"]: each["trace_id"] for each in traced.stack.http.get("/v1/runs").json()["runs"]}
    assert listed[run["run_id"]] == trace_id
    assert traced.span("run workflow", trace_id).attributes["citadel.run.id"] == run["run_id"]


def test_a_task_names_the_trace_of_its_request(traced: Traced) -> None:
    tasks = "/v1/embeddings/tasks"
    accepted = [traced.stack.http.post(tasks, json={"text": "a", "model": model}) for model in (MODEL, "no-such-model")]
    accepted = [answer for answer in accepted if answer.status_code == 202]
    for answer in accepted:
        trace_id = answer.headers["x-request-id"]
        shown = traced.stack.http.get(answer.headers["location"]).json()
        assert shown["trace_id"] == trace_id
        ended = traced.stack.until(answer.headers["location"], lambda task: task["status"] in {"succeeded", "failed"})
        assert ended["trace_id"] == trace_id
        assert "error" not in ended or ended["error"]["trace_id"] == trace_id
    assert accepted


def test_polls_begin_no_trace_and_other_requests_do(traced: Traced) -> None:
    path = traced.stack.submit(embedding("a", "a"))
    polls = [traced.stack.http.get(path) for _ in range(20)]
    traced.settle()
    traces = {span.trace_id for span in traced.receiver.spans}
    assert not traces & {answer.headers["x-request-id"] for answer in polls}
    assert {answer.headers["traceresponse"][-2:] for answer in polls} == {"00"}
    assert polls[0].json()["trace_id"] in traces


def test_a_poll_within_a_sampled_trace_of_the_caller_is_part_of_it(traced: Traced) -> None:
    sampled, unsampled = uuid.uuid4().hex, uuid.uuid4().hex
    path = traced.stack.submit(embedding("a", "a"))
    for trace_id, flags in ((sampled, "01"), (unsampled, "00")):
        traced.stack.http.get(path, headers={"traceparent": f"00-{trace_id}-00f067aa0ba902b7-{flags}"})
    assert traced.span("GET /v1/runs/{run_id}", sampled).parent_id == "00f067aa0ba902b7"
    traced.settle()
    assert not traced.spans("GET /v1/runs/{run_id}", unsampled)


def test_a_poll_that_fails_is_found_by_the_trace_id_of_its_error(traced: Traced) -> None:
    traced.stack.redis.pause()
    try:
        failed = traced.stack.http.get("/v1/queues")
    finally:
        traced.stack.redis.resume()
    assert failed.status_code == 503
    span = traced.span("GET /v1/queues", trace_id_in(failed))
    assert (span.kind, span.parent_id, span.failed) == ("SERVER", "", True)
    assert span.attributes["http.response.status_code"] == 503
    assert span.attributes["http.route"] == "/v1/queues"
