"""A task stays in its trace however often it is sent, against a receiver that speaks OTLP."""

import signal
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.doubles.otlp.spans import ReceivedSpan
from tests.support.fixtures import require_redis
from tests.support.polling import eventually
from tests.support.postgres_server import PostgresProcess
from tests.support.traced import TracedServer, traced_server
from tests.support.worker import WorkerProcess

CALLER = "00f067aa0ba902b7"
ENGINE, EMBEDDINGS = "citadel-orchestration", "citadel-embeddings"
SEND, PROCESS = "send embeddings", "process embeddings"
TASKS = "/v1/embeddings/tasks"
QUICK = {"EMBEDDINGS__PATIENCE": "0.2", "WORKER__RETRY__MAX_RETRIES": "1"}


@pytest.fixture(scope="module")
def running(postgres_server: PostgresProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TracedServer]:
    """Start the whole server without an embeddings worker: each test starts its own, which may die."""
    require_redis()
    with traced_server(postgres_server, tmp_path_factory.mktemp("api") / "log") as server:
        server.embeddings.terminate()
        yield server


@pytest.fixture
def server(running: TracedServer) -> TracedServer:
    """Return the server, with a healthy backend that was not called yet."""
    running.ollama.reset()
    return running


def accepted(server: TracedServer, path: str = TASKS, **body: Any) -> tuple[str, str]:
    """Submit a task as part of a caller's trace; return the trace id and the path of the task."""
    trace_id = uuid.uuid4().hex
    headers = {"traceparent": f"00-{trace_id}-{CALLER}-01"}
    answer = server.http.post(path, json=body or {"text": f"text of {trace_id}"}, headers=headers)
    assert answer.status_code == 202, answer.text
    return trace_id, answer.headers["location"]


def worker(server: TracedServer, **settings: Any) -> WorkerProcess:
    return WorkerProcess(server.redis.url, server.ollama.url, **settings)


def ended(server: TracedServer, location: str) -> str:
    def status() -> str:
        return str(server.http.get(location).json()["status"])

    eventually(lambda: status() in ("succeeded", "failed"))
    return status()


def found(
    server: TracedServer, trace_id: str, wanted: Callable[[list[ReceivedSpan]], object], *, dead: bool = False
) -> list[ReceivedSpan]:
    """Wait until the spans of a trace are as wanted; return them. Spans of `dead` workers may lack their parent."""

    def look() -> list[ReceivedSpan] | None:
        spans = server.receiver.of_trace(trace_id)
        known = {span.span_id for span in spans} | {CALLER}
        is_whole = dead or all(span.parent_id in known for span in spans)
        return spans if is_whole and wanted(spans) else None

    try:
        return eventually(look)
    except AssertionError:
        shown = [(span.service, span.name, span.parent_id, span.span_id) for span in server.receiver.of_trace(trace_id)]
        raise AssertionError(f"the trace is not as wanted: {shown}") from None


def named(spans: list[ReceivedSpan], name: str, service: str = "") -> list[ReceivedSpan]:
    """Those of that name, in the order of their beginning."""
    alike = [span for span in spans if span.name == name and service in ("", span.service)]
    return sorted(alike, key=lambda span: span.began)


@pytest.mark.parametrize(
    ("path", "body"), [(TASKS, {"text": ["one", "two"]}), ("/v1/cache/warm", {"texts": ["one", "two"]})]
)
def test_a_task_that_redis_has_lost_is_published_again_below_its_request(
    server: TracedServer, path: str, body: dict[str, Any]
) -> None:
    trace_id, location = accepted(server, path, **body)
    server.redis.flush()
    with worker(server):
        assert ended(server, location) == "succeeded"
        spans = found(server, trace_id, lambda spans: named(spans, PROCESS) and named(spans, SEND, ENGINE))
    [request] = named(spans, f"POST {path}")
    again = named(spans, SEND, ENGINE)
    assert {span.parent_id for span in again} == {request.span_id}
    assert {span.parent_id for span in named(spans, PROCESS)} <= {span.span_id for span in again}


def test_redis_is_emptied_while_the_task_runs(server: TracedServer) -> None:
    server.ollama.behaviour("hang")
    with worker(server) as doomed:
        trace_id, location = accepted(server)
        eventually(lambda: server.ollama.stats()["requests"])
        doomed.kill()
    server.redis.flush()
    server.ollama.behaviour("ok")
    with worker(server):
        assert ended(server, location) == "succeeded"
        spans = found(server, trace_id, lambda spans: named(spans, PROCESS), dead=True)
    sent = {span.span_id: span for span in named(spans, SEND)}
    assert {span.parent_id for span in sent.values()} == {named(spans, f"POST {TASKS}")[0].span_id}
    assert sent[named(spans, PROCESS)[-1].parent_id].service == ENGINE


def test_a_message_lost_on_its_way_is_published_again_in_its_trace(server: TracedServer) -> None:
    trace_id, location = accepted(server)
    task_id = location.rpartition("/")[2]
    lanes = ("embeddings", *(f"embeddings\x06\x16{step}" for step in (3, 6, 9)))
    with server.redis.client() as client:
        eventually(lambda: client.delete(*lanes))
        client.delete(f"citadel:tracked:{task_id}")  # Redis loses both or none
        client.zadd("citadel:accepted:due", {task_id: 0})
    with worker(server):
        assert ended(server, location) == "succeeded"
        spans = found(server, trace_id, lambda spans: named(spans, PROCESS) and len(named(spans, SEND)) >= 2)
    again = [span for span in named(spans, SEND) if span.service in (ENGINE, EMBEDDINGS)]
    assert {span.parent_id for span in again} == {named(spans, f"POST {TASKS}")[0].span_id}
    assert named(spans, PROCESS)[-1].parent_id in {span.span_id for span in again}
    with server.redis.client() as client:
        eventually(lambda: not client.exists(f"citadel:accepted:trace:{task_id}"))


def test_what_a_dead_worker_held_is_delivered_below_the_same_sending(server: TracedServer) -> None:
    server.ollama.behaviour("hang")
    with worker(server) as doomed:
        trace_id, location = accepted(server)
        eventually(lambda: server.ollama.stats()["requests"])
        doomed.signal(signal.SIGKILL)
        server.ollama.behaviour("ok")
        with worker(server):
            assert ended(server, location) == "succeeded"
            spans = found(server, trace_id, lambda spans: named(spans, PROCESS), dead=True)
    # it is also published again, if the reaper is late
    assert {span.parent_id for span in named(spans, PROCESS)} <= {span.span_id for span in named(spans, SEND)}


def test_retries_a_dead_letter_and_its_requeue_are_one_trace_with_links(server: TracedServer) -> None:
    server.ollama.behaviour("error500")
    with worker(server, **QUICK):
        trace_id, location = accepted(server)
        assert ended(server, location) == "failed"
        server.ollama.behaviour("ok")
        path = f"/v1/dead-letters/{location.rpartition('/')[2]}"
        operator = uuid.uuid4().hex
        headers = {"traceparent": f"00-{operator}-{CALLER}-01"}
        assert eventually(lambda: server.http.post(f"{path}/requeue", headers=headers).status_code in (200, 202))
        eventually(lambda: ended(server, location) == "succeeded")
        spans = found(server, trace_id, lambda spans: len(named(spans, PROCESS)) >= 3)
    first, second, third = named(spans, PROCESS)
    sent = {span.span_id: span for span in named(spans, SEND)}
    assert sent[second.parent_id].parent_id == first.span_id
    assert (first.links, second.links, third.links) == ((), (first.span_id,), (second.span_id,))
    assert (first.failed, second.failed, third.failed) == (True, True, False)
    assert sent[third.parent_id].service == "citadel-api"
    [request] = found(server, operator, bool)
    assert request.links == (sent[second.parent_id].span_id,)
