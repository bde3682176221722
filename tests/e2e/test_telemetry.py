"""What telemetry must never do: tell a secret, or stand in the way."""

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.otlp.receiver import OtlpReceiver
from tests.support.disclosure import DISCLOSURES
from tests.support.fixtures import require_redis
from tests.support.planted import BACKEND_KEY, LLM_KEY, QDRANT_KEY, QUESTION, TEXT
from tests.support.polling import eventually
from tests.support.postgres_server import PostgresProcess
from tests.support.traced import Surroundings, TracedServer, server_among, surroundings
from tests.support.web import web

MODEL = "nomic-embed-text"
OPEN_METRICS = {"accept": "application/openmetrics-text; version=1.0.0"}


def question(text: str) -> dict[str, Any]:
    steps = [
        {"step_id": "q", "type": "embedding", "parameters": {"text": "${{ context.question }}", "model": MODEL}},
        {
            "step_id": "docs",
            "type": "vector_search",
            "parameters": {"collection": "docs", "embedding": "${{ steps.q.output.embedding }}"},
        },
        {"step_id": "answer", "type": "llm_query", "parameters": {"query": "${{ context.question }}"}},
    ]
    return {"workflow_id": "secret", "context": {"question": text}, "steps": steps}


@pytest.fixture(scope="module")
def around() -> Iterator[Surroundings]:
    """Redis and the doubles of all servers of this module."""
    require_redis()
    with surroundings() as around:
        yield around


@pytest.fixture(scope="module")
def server(
    around: Surroundings, postgres_server: PostgresProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TracedServer]:
    """Start the whole server, with secrets."""
    with server_among(around, postgres_server, tmp_path_factory.mktemp("api") / "log") as server:
        yield server


def metrics_of(server: TracedServer) -> tuple[str, str]:
    """Those of the API and of the embeddings worker."""
    api = server.http.get("/metrics", headers=OPEN_METRICS)
    worker = web.get(f"http://127.0.0.1:{server.embeddings_metrics}/metrics", headers=OPEN_METRICS, timeout=10)
    assert api.status_code == worker.status_code == 200
    return api.text, worker.text


def test_no_text_key_or_password_is_in_spans_logs_and_metrics(server: TracedServer) -> None:
    """With the failures whose messages quote what they failed on, too."""
    server.store(TEXT)
    assert server.ended(server.submit(question(QUESTION)))["status"] == "succeeded"
    for mode in ("echo_key", "bad400"):
        server.llm.behaviour(mode)
        assert server.ended(server.submit(question(QUESTION)))["status"] == "failed"
    server.llm.behaviour("ok")
    server.http.post("/v1/embeddings", json={"input": TEXT, "model": TEXT})
    server.http.post("/v1/workflows", json={"steps": TEXT})
    eventually(lambda: sum(span.name.startswith("run ") for span in server.receiver.spans) >= 4)
    assert {"chat tiny-llm", "query_points docs"} <= {span.name for span in server.receiver.spans}
    for part, metrics in zip(("the API", "the worker"), metrics_of(server), strict=True):
        DISCLOSURES.search(part, metrics.encode())
    assert DISCLOSURES.taken() == []


def test_servers_that_repeat_what_they_were_sent_are_not_quoted(server: TracedServer) -> None:
    """In no line of retries, breakers, dead letters and requeues."""
    repeated = f"cannot embed {TEXT!r} for {BACKEND_KEY} with {QDRANT_KEY}"
    for mode in ("error500", "runner400", "auth401", "rate429"):
        server.ollama.behaviour(mode, message=repeated, for_requests=4)
        body = {"model": MODEL, "input": [f"{TEXT} {mode}"], "encoding_format": "base64"}
        server.http.post("/v1/embeddings", json=body)
        server.http.post("/v1/embeddings/tasks", json={"text": f"{TEXT} {mode}"})
        server.http.post("/v1/cache/warm", json={"texts": [f"{TEXT} {mode}"]})
    server.ollama.reset()
    for mode in ("error500", "bad400"):
        server.llm.behaviour(mode, message=f"cannot answer {QUESTION} for {LLM_KEY}")
        assert server.ended(server.submit(question(QUESTION)))["status"] == "failed"
    server.llm.behaviour("ok")
    batch = {"requests": [{"text": f"{TEXT} {number}"} for number in range(5)] + [{"text": f"{TEXT} [[nan]]"}]}
    answer = server.http.post("/v1/embeddings/batches", json=batch)
    assert server.ended(answer.headers["location"])["status"] in ("succeeded", "failed")
    assert DISCLOSURES.taken() == []


def test_a_dead_letter_is_quoted_to_operators_and_not_in_logs(server: TracedServer) -> None:
    server.http.headers["x-request-id"] = TEXT
    accepted = server.http.post("/v1/embeddings/tasks", json={"text": f"{TEXT} dead [[busy503]]"})
    path = f"/v1/dead-letters/{accepted.json()['task_id']}"
    dead_letter = eventually(lambda: (answer := server.http.get(path)).status_code == 200 and answer.json())
    assert TEXT in json.dumps(dead_letter)
    requeued = eventually(lambda: (answer := server.http.post(f"{path}/requeue")).status_code != 409 and answer)
    assert requeued.is_success, requeued.text
    server.http.delete(path)
    assert DISCLOSURES.taken() == []


def test_metrics_are_served_by_the_api_and_on_a_workers_own_port_with_exemplars(server: TracedServer) -> None:
    answer = server.http.post("/v1/embeddings", json={"input": "measured", "model": MODEL})
    assert answer.status_code == 200
    api, worker = metrics_of(server)
    assert any(line.startswith("citadel_api_requests_total{") and "/v1/embeddings" in line for line in api.splitlines())
    begin = 'citadel_tasks_total{outcome="ok",task="generate_embedding"}'
    task = next(line for line in worker.splitlines() if line.startswith(begin))
    exemplar = task.partition('trace_id="')[2][:32]
    eventually(lambda: exemplar in {span.trace_id for span in server.receiver.spans})


def test_a_log_line_has_the_trace_and_the_span_in_which_it_was_written(server: TracedServer) -> None:
    trace_id = uuid.uuid4().hex
    headers = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
    assert server.http.post("/v1/workflows", json={"steps": []}, headers=headers).status_code == 422
    line = eventually(
        lambda: next((line for line in server.api.log.read_text().splitlines() if trace_id in line), None)
    )
    # The check of the backlog may read the database below the request.
    [span] = eventually(lambda: [s for s in server.receiver.of_trace(trace_id) if s.name == "POST /v1/workflows"])
    shown = json.loads(line)
    assert (shown["event"], shown["service"]) == ("request", "api")
    assert (shown["trace_id"], shown["span_id"]) == (trace_id, span.span_id)


@pytest.mark.parametrize(("number", "mode"), [(1, "hanging"), (2, "refusing"), (3, "dead")])
def test_a_receiver_that_fails_fails_nothing(
    around: Surroundings, postgres_server: PostgresProcess, tmp_path: Path, number: int, mode: Any
) -> None:
    around.doubles.ollama.reset()
    around.doubles.llm.reset()
    with OtlpReceiver() as receiver:
        receiver.mode = "ok" if mode == "dead" else mode
        endpoint = "http://127.0.0.1:9" if mode == "dead" else receiver.endpoint
        small = {"OTEL_BSP_MAX_QUEUE_SIZE": "16"}
        with server_among(
            around, postgres_server, tmp_path / "log", number=number, endpoint=endpoint, **small
        ) as server:
            server.store("a document")
            paths = [server.submit(question(f"which is {count}")) for count in range(10)]
            assert {server.ended(path)["status"] for path in paths} == {"succeeded"}
            _, worker = metrics_of(server)
            assert 'citadel_spans_total{outcome="exported"}' not in worker
            assert exit_codes(server) == [0, 0, 0]


def exit_codes(server: TracedServer) -> list[int]:
    """Stop the API and both workers at the same time; return their exit codes."""
    with ThreadPoolExecutor(3) as threads:
        ends = [threads.submit(part.terminate) for part in (server.api, server.orchestration, server.embeddings)]
        return [end.result() for end in ends]
