"""Accepted tasks, from the 202 to the result."""

from base64 import b64decode
from typing import Any

import httpx
import orjson
import pytest

from tests.integration.api.fake_worker import vector_of
from tests.integration.api.servers import Program, RedisServer, until


def status_of(http: httpx.Client, location: str) -> dict[str, Any]:
    answer = http.get(location)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_accepted_task_is_queued_and_then_succeeds(
    http: httpx.Client, api_redis: RedisServer, request: pytest.FixtureRequest
) -> None:
    answer = http.post("/v1/embeddings/tasks", json={"text": ["one", "two"]})
    accepted = answer.json()
    location = answer.headers["location"]
    assert answer.status_code == 202
    assert location == f"/v1/tasks/{accepted['task_id']}"
    assert (accepted["status"], accepted["queue"]) == ("queued", "embeddings")
    known = {"task_id": accepted["task_id"], "status": "queued", "trace_id": answer.headers["x-request-id"]}
    assert status_of(http, location) == known
    [message] = map(orjson.loads, api_redis.store.lrange("embeddings\x06\x163", 0, -1))
    assert b'"two"' in b64decode(message["body"])
    assert "two" not in str(message["headers"])
    assert http.get("/v1/queues").json()["queues"][0]["lanes"] == {"interactive": 0, "standard": 1, "batch": 0}
    request.getfixturevalue("worker")
    until(lambda: status_of(http, location)["status"] == "succeeded", "the task's end")
    result = status_of(http, location)["result"]
    assert result["embeddings"] == orjson.loads(orjson.dumps([vector_of(text).tolist() for text in ("one", "two")]))
    assert not api_redis.store.exists("citadel:accepted")


def test_a_task_is_recorded_before_it_is_published(http: httpx.Client, api_redis: RedisServer, worker: Program) -> None:
    """The record holds all that is needed to publish the task again."""
    task_id = http.post("/v1/embeddings/tasks", json={"text": "wait on record", "dimensions": 4}).json()["task_id"]
    stored = orjson.loads(api_redis.store.hget("citadel:accepted", task_id))
    assert stored["name"] == "generate_embedding"
    assert stored["kwargs"] == {"text": "wait on record", "dimensions": 4, "model": "nomic-embed-text"}
    until(lambda: status_of(http, f"/v1/tasks/{task_id}")["status"] == "running", "the lease")
    api_redis.store.lpush("record", 1)
    until(lambda: status_of(http, f"/v1/tasks/{task_id}")["status"] == "succeeded", "the task's end")


def test_warming_the_cache_shows_progress(http: httpx.Client, api_redis: RedisServer, worker: Program) -> None:
    api_redis.store.delete("started")
    answer = http.post("/v1/cache/warm", json={"texts": ["a", "b"], "models": ["all-minilm"]})
    assert answer.status_code == 202
    api_redis.store.blpop("started", timeout=60)
    status = status_of(http, answer.headers["location"])
    assert (status["status"], status["progress"]) == ("running", {"processed": 1, "total": 2})
    api_redis.store.lpush("warm", 1)
    until(lambda: status_of(http, answer.headers["location"])["status"] == "succeeded", "the warming's end")


def test_a_failed_task_shows_its_error(http: httpx.Client, worker: Program) -> None:
    answer = http.post("/v1/embeddings/tasks", json={"text": "fail BadVector"})
    location, trace_id = answer.headers["location"], answer.headers["x-request-id"]
    until(lambda: status_of(http, location)["status"] == "failed", "the task's failure")
    error = {"code": "bad_vector", "message": "as told: BadVector", "retryable": False, "trace_id": trace_id}
    assert status_of(http, location)["error"] == error


def test_a_task_between_attempts_is_retrying(http: httpx.Client, worker: Program) -> None:
    location = http.post("/v1/embeddings/tasks", json={"text": "fail BackendUnavailable"}).headers["location"]
    until(lambda: status_of(http, location)["status"] == "retrying", "the first retry")
    assert status_of(http, location)["error"]["code"] == "backend_unavailable"


@pytest.mark.parametrize("task_id", ["unknown", "0" * 4000, "a%2Fb", "citadel:accepted", "%00", "*"])
def test_an_unknown_task_is_not_found(http: httpx.Client, task_id: str) -> None:
    answer = http.get(f"/v1/tasks/{task_id}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_live_worker_is_listed_and_counted_for_its_queue(http: httpx.Client, worker: Program) -> None:
    (info,) = http.get("/v1/workers").json()["workers"]
    assert (info["pid"], info["queue"]) == (worker.process.pid, "embeddings")
    assert http.get("/v1/queues").json()["queues"][0]["workers"] == 1


@pytest.mark.usefixtures("worker")
def test_health_is_up_for_queues_with_a_live_worker(http: httpx.Client) -> None:
    health = http.get("/v1/health").json()
    assert {name: part["status"] for name, part in health["components"].items() if part["required"]} == {
        "broker": "up",
        "results": "up",
        "postgres": "up",
        "embedding_workers": "up",
        "orchestration_workers": "down",
        "embedding_models": "up",
    }
    assert http.get("/readyz").status_code == 200
