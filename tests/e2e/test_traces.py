"""One trace per run, through real processes, against a receiver that speaks OTLP."""

import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest

from tests.doubles.otlp.receiver import OtlpReceiver
from tests.doubles.otlp.spans import ReceivedSpan
from tests.support.fixtures import require_redis
from tests.support.orchestration import OrchestrationProcess
from tests.support.planted import QUESTION, TEXT
from tests.support.polling import eventually
from tests.support.postgres_server import PostgresProcess
from tests.support.traced import SLOTS, TracedServer, traced_server

MODEL = "nomic-embed-text"
CALLER = "00f067aa0ba902b7"
EMBEDDED = "citadel:steps:embedded"


@dataclass(frozen=True, kw_only=True)
class Expected:
    """A span that a run's trace must have."""

    service: str
    name: str
    kind: str
    parent: str
    attributes: dict[str, Any] = field(default_factory=dict)


def _message(operation: str, destination: str, system: str = "celery") -> dict[str, Any]:
    return {
        "messaging.system": system,
        "messaging.destination.name": destination,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
    }


API, ENGINE, EMBEDDINGS = "citadel-api", "citadel-orchestration", "citadel-embeddings"
EXPECTED = [
    Expected(
        service=API,
        name="POST /v1/workflows",
        kind="SERVER",
        parent=CALLER,
        attributes={
            "http.request.method": "POST",
            "http.route": "/v1/workflows",
            "http.response.status_code": 202,
            "url.path": "/v1/workflows",
            "url.scheme": "http",
        },
    ),
    Expected(
        service=API,
        name="send orchestration",
        kind="PRODUCER",
        parent="POST /v1/workflows",
        attributes=_message("send", "orchestration") | {"citadel.task.name": "citadel.run_step"},
    ),
    Expected(
        service=ENGINE,
        name="process orchestration",
        kind="CONSUMER",
        parent="send orchestration",
        attributes=_message("process", "orchestration") | {"citadel.task.outcome": "ok"},
    ),
    Expected(
        service=ENGINE,
        name="run workflow",
        kind="INTERNAL",
        parent="POST /v1/workflows",
        attributes={"citadel.run.status": "succeeded", "citadel.run.kind": "workflow", "citadel.workflow.id": "traced"},
    ),
    Expected(
        service=ENGINE,
        name="step embedding",
        kind="INTERNAL",
        parent="run workflow",
        attributes={"citadel.step.id": "q", "citadel.step.attempt": 1, "citadel.step.status": "succeeded"},
    ),
    Expected(
        service=ENGINE,
        name="send embeddings",
        kind="PRODUCER",
        parent="step embedding",
        attributes=_message("send", "embeddings"),
    ),
    Expected(
        service=EMBEDDINGS,
        name="process embeddings",
        kind="CONSUMER",
        parent="send embeddings",
        attributes=_message("process", "embeddings"),
    ),
    Expected(
        service=EMBEDDINGS,
        name="MGET",
        kind="CLIENT",
        parent="process embeddings",
        attributes={"db.system.name": "redis", "db.operation.name": "MGET", "citadel.texts": 1},
    ),
    Expected(
        service=EMBEDDINGS,
        name=f"embeddings {MODEL}",
        kind="CLIENT",
        parent="process embeddings",
        attributes={"gen_ai.operation.name": "embeddings", "gen_ai.provider.name": "ollama", "citadel.texts": 1},
    ),
    Expected(
        service=EMBEDDINGS,
        name=f"send {EMBEDDED}",
        kind="PRODUCER",
        parent="process embeddings",
        attributes=_message("send", EMBEDDED, "redis"),
    ),
    Expected(
        service=ENGINE,
        name=f"process {EMBEDDED}",
        kind="CONSUMER",
        parent=f"send {EMBEDDED}",
        attributes=_message("process", EMBEDDED, "redis"),
    ),
    Expected(
        service=ENGINE,
        name="transaction",
        kind="CLIENT",
        parent=f"process {EMBEDDED}",
        attributes={"db.system.name": "postgresql", "db.operation.name": "transaction"},
    ),
    Expected(service=ENGINE, name="step vector_search", kind="INTERNAL", parent="run workflow"),
    Expected(
        service=ENGINE,
        name="query_points docs",
        kind="CLIENT",
        parent="step vector_search",
        attributes={"db.system.name": "qdrant", "db.operation.name": "query_points", "db.collection.name": "docs"},
    ),
    Expected(service=ENGINE, name="step llm_query", kind="INTERNAL", parent="run workflow"),
    Expected(
        service=ENGINE,
        name="chat tiny-llm",
        kind="CLIENT",
        parent="step llm_query",
        attributes={
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "ollama",
            "gen_ai.request.model": "tiny-llm",
            "gen_ai.response.finish_reasons": ["stop"],
        },
    ),
]


def workflow(question: str, name: str = "traced") -> dict[str, Any]:
    """Retrieval-augmented generation."""
    quick = {"max_attempts": 4, "delay": "10ms"}
    return {
        "workflow_id": name,
        "context": {"question": question},
        "steps": [
            {"step_id": "q", "type": "embedding", "parameters": {"text": "${{ context.question }}", "model": MODEL}},
            {
                "step_id": "docs",
                "type": "vector_search",
                "parameters": {"collection": "docs", "embedding": "${{ steps.q.output.embedding }}", "limit": 3},
            },
            {
                "step_id": "answer",
                "type": "llm_query",
                "retry": quick,
                "parameters": {"query": "From ${{ steps.docs.output.hits }}: ${{ context.question }}"},
            },
        ],
        "output": "${{ steps.answer.output.text }}",
    }


def question_of_workflow(question: str) -> dict[str, Any]:
    """Submit a run with one question to the LLM."""
    steps = [{"step_id": "answer", "type": "llm_query", "parameters": {"query": question}}]
    return {"workflow_id": "asked", "steps": steps, "defaults": {"retry": {"max_attempts": 4, "delay": "10ms"}}}


@pytest.fixture(scope="module")
def server(postgres_server: PostgresProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TracedServer]:
    """Start the whole server, with documents."""
    require_redis()
    log = tmp_path_factory.mktemp("api") / "log"
    with traced_server(postgres_server, log) as server:
        server.store(*(f"{TEXT} {number}" for number in range(5)))
        yield server


def begin(server: TracedServer, definition: dict[str, Any]) -> tuple[str, str]:
    """Submit a run as part of a caller's trace; return the trace id and the run's path."""
    trace_id = uuid.uuid4().hex
    return trace_id, server.submit(definition, traceparent=f"00-{trace_id}-{CALLER}-01")


def whole_trace(receiver: OtlpReceiver, trace_id: str, *names: str) -> list[ReceivedSpan]:
    """Wait until a trace has the named spans and all of their parents; return its spans."""

    def complete() -> list[ReceivedSpan] | None:
        found = receiver.of_trace(trace_id)
        known = {span.span_id for span in found} | {CALLER}
        is_whole = set(names) <= {span.name for span in found} and all(span.parent_id in known for span in found)
        return found if is_whole else None

    try:
        return eventually(complete, 30.0)
    except AssertionError:
        found = receiver.of_trace(trace_id)
        known = {span.span_id for span in found} | {CALLER}
        orphans = [span for span in found if span.parent_id not in known]
        raise AssertionError(f"missing: {set(names) - {s.name for s in found}}; orphans: {orphans}") from None


def seconds(moment: str) -> int:
    """Nanoseconds of an ISO 8601 time."""
    at = datetime.fromisoformat(moment)
    return int(at.timestamp()) * 1_000_000_000 + at.microsecond * 1000


def test_a_run_is_one_trace_with_the_expected_signals(server: TracedServer) -> None:
    trace_id, path = begin(server, workflow(QUESTION))
    run = server.ended(path)
    assert run["status"] == "succeeded", run
    found = whole_trace(server.receiver, trace_id, *(expected.name for expected in EXPECTED))
    names = {span.span_id: span.name for span in found} | {CALLER: CALLER}
    for expected in EXPECTED:
        alike = [
            span
            for span in found
            if (span.service, span.name, span.kind, names[span.parent_id])
            == (expected.service, expected.name, expected.kind, expected.parent)
        ]
        assert alike, f"no {expected}; there are {[(s.service, s.name, s.kind, names[s.parent_id]) for s in found]}"
        shown = alike[0].attributes
        assert {name: shown.get(name) for name in expected.attributes} == expected.attributes
        assert not alike[0].failed
    [root] = [span for span in found if span.name == "run workflow"]
    assert (root.began, root.ended) == (seconds(run["created_at"]), seconds(run["finished_at"]))


def test_a_retried_step_is_linked_to_the_attempt_before(server: TracedServer) -> None:
    server.llm.behaviour("error500", for_requests=1)
    trace_id, path = begin(server, question_of_workflow(QUESTION))
    assert server.ended(path)["status"] == "succeeded"
    found = whole_trace(server.receiver, trace_id, "run workflow")
    first, second = sorted((span for span in found if span.name == "step llm_query"), key=lambda span: span.began)
    assert first.failed
    assert first.attributes["citadel.step.status"] == "retried"
    assert first.attributes["error.type"] == "llm_unavailable"
    assert first.links == ()
    assert second.links == (first.span_id,)
    assert not second.failed
    calls = {span.parent_id: span.failed for span in found if span.name == "chat tiny-llm"}
    assert calls == {first.span_id: True, second.span_id: False}


def test_a_wait_for_a_slot_is_a_span_linked_to_the_attempt_that_follows(server: TracedServer) -> None:
    server.llm.behaviour("held")
    asked = {"step_id": "each", "type": "llm_query", "parameters": {"query": "${{ item }}"}}
    items = [f"question {number}" for number in range(SLOTS + 1)]
    trace_id, path = begin(server, {"steps": [asked | {"for_each": {"items": items, "max_parallel": len(items)}}]})
    eventually(lambda: (server.http.get(path).json()["steps"][0]["items"] or {}).get("waiting") == 1)
    server.llm.behaviour("ok")
    server.llm.release(SLOTS)
    assert server.ended(path)["status"] == "succeeded"
    found = whole_trace(server.receiver, trace_id, "run workflow", "wait llm:main")
    [wait] = [span for span in found if span.name == "wait llm:main"]
    [attempt] = [span for span in found if (span.span_id,) == wait.links]
    [root] = [span for span in found if span.name == "run workflow"]
    assert wait.parent_id == attempt.parent_id == root.span_id
    assert (attempt.name, attempt.began) == ("step llm_query", wait.ended)
    assert 0 < wait.attributes["citadel.wait.seconds"] == pytest.approx((wait.ended - wait.began) / 1e9, abs=0.001)
    about = ("citadel.wait.for", "citadel.wait.outcome")
    assert [wait.attributes[name] for name in about] == ["llm:main", "admitted"]
    same = ("citadel.run.id", "citadel.step.id", "citadel.step.item", "citadel.step.attempt")
    assert {name: wait.attributes[name] for name in same} == {name: attempt.attributes[name] for name in same}


def test_a_sub_run_and_its_items_are_in_the_same_trace(server: TracedServer) -> None:
    inner = {
        "steps": [
            {
                "step_id": "each",
                "type": "embedding",
                "for_each": {"items": ["one", "two", "three"], "max_parallel": 2},
                "parameters": {"text": "${{ item }}", "model": MODEL},
            }
        ]
    }
    outer = {
        "workflow_id": "outer",
        "steps": [{"step_id": "sub", "type": "workflow", "parameters": {"definition": inner}}],
    }
    trace_id, path = begin(server, outer)
    assert server.ended(path)["status"] == "succeeded"
    found = whole_trace(server.receiver, trace_id, "run workflow", "step workflow")
    inner_root, outer_root = sorted(
        (span for span in found if span.name == "run workflow"), key=lambda span: span.began, reverse=True
    )
    [sub] = [span for span in found if span.name == "step workflow"]
    assert sub.parent_id == outer_root.span_id
    assert inner_root.parent_id == sub.span_id
    items = [span for span in found if "citadel.step.item" in span.attributes]
    assert sorted(span.attributes["citadel.step.item"] for span in items) == [0, 1, 2]
    assert {span.parent_id for span in items} == {inner_root.span_id}


def test_a_problem_names_the_real_trace(server: TracedServer) -> None:
    trace_id = uuid.uuid4().hex
    refused = server.http.post("/v1/workflows", json={}, headers={"traceparent": f"00-{trace_id}-{CALLER}-01"})
    assert refused.status_code == 422
    assert refused.json()["trace_id"] == trace_id
    found = whole_trace(server.receiver, trace_id, "POST /v1/workflows")
    [span] = [span for span in found if span.name == "POST /v1/workflows"]
    assert span.attributes["http.response.status_code"] == 422
    assert refused.headers["traceresponse"] == f"00-{trace_id}-{span.span_id}-01"


def test_an_accepted_task_is_traced_from_the_request_to_the_backend(server: TracedServer) -> None:
    trace_id = uuid.uuid4().hex
    headers = {"traceparent": f"00-{trace_id}-{CALLER}-01"}
    server.http.post("/v1/embeddings/tasks", json={"text": f"task {trace_id}"}, headers=headers)
    found = whole_trace(server.receiver, trace_id, "process embeddings", f"embeddings {MODEL}")
    names = {span.span_id: span.name for span in found}
    edges = {(names.get(span.parent_id, CALLER), span.name) for span in found}
    assert {
        (CALLER, "POST /v1/embeddings/tasks"),
        ("POST /v1/embeddings/tasks", "send embeddings"),
        ("send embeddings", "process embeddings"),
        ("process embeddings", f"embeddings {MODEL}"),
    } <= edges


def test_what_is_not_sampled_is_not_exported(server: TracedServer) -> None:
    trace_id = uuid.uuid4().hex
    path = server.submit(workflow("not sampled"), traceparent=f"00-{trace_id}-{CALLER}-00")
    assert server.ended(path)["status"] == "succeeded"
    sampled, other = begin(server, workflow("sampled"))
    server.ended(other)
    whole_trace(server.receiver, sampled, "run workflow")
    assert server.receiver.of_trace(trace_id) == []


def test_a_run_whose_worker_is_killed_and_whose_redis_is_flushed_stays_one_trace(server: TracedServer) -> None:
    server.llm.behaviour("hang")
    trace_id, path = begin(server, workflow(QUESTION))
    whole = ("step embedding", "step vector_search")
    eventually(lambda: set(whole) <= {span.name for span in server.receiver.of_trace(trace_id)}, 30.0)
    server.orchestration.signal(signal.SIGKILL)
    server.redis.flush()
    server.llm.behaviour("ok")
    with OrchestrationProcess(server.redis.url, server.dsn, server.others):
        assert server.ended(path)["status"] == "succeeded"
        found = whole_trace(server.receiver, trace_id, *whole, "run workflow")
    lost, done = sorted((span for span in found if span.name == "step llm_query"), key=lambda span: span.began)
    assert lost.attributes["citadel.step.status"] == "lost"
    assert lost.failed
    assert done.links == (lost.span_id,)
    assert len([span for span in found if span.name == "run workflow"]) == 1
