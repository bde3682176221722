"""Accepted tasks are in PostgreSQL before the 202, so that neither Redis nor the API can lose them."""

import contextlib
import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psycopg
import pytest

from tests.doubles.ollama.vectors import expected_vector
from tests.doubles.process import OllamaProcess
from tests.integration.api.servers import Api, RedisServer
from tests.integration.api.stack import MODEL
from tests.support.fixtures import require_postgres, require_redis
from tests.support.orchestration import OrchestrationProcess
from tests.support.planted import CREDENTIALS
from tests.support.polling import eventually
from tests.support.postgres_server import PostgresProcess
from tests.support.worker import WorkerProcess

TASKS = "/v1/embeddings/tasks"
LISTS = ("embeddings", *(f"embeddings\x06\x16{step}" for step in (3, 6, 9)))
QUICK = {"ACCEPTED__FIRST_LOOK": "0.5"}
LATE = {"ACCEPTED__FIRST_LOOK": "3600"}


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresProcess]:
    """A PostgreSQL server that may be stopped."""
    require_postgres()
    with PostgresProcess() as server:
        yield server


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The API and its stores, without workers."""

    redis: RedisServer
    dsn: str
    double: OllamaProcess
    http: httpx.Client

    def another_api(self, log: Path, **settings: str) -> Api:
        """Start another API on the same stores."""
        return start_api(self.redis, self.dsn, log, **settings)


def start_api(redis: RedisServer, dsn: str, log: Path, **settings: str) -> Api:
    stores = {"BROKER_URL": redis.url, "POSTGRES_DSN": dsn, "API__WORKERS": "1"}
    return Api({f"CITADEL_{name}": value for name, value in (stores | settings).items()}, log)


@pytest.fixture(scope="module")
def parts(
    own_postgres: PostgresProcess, ollama: OllamaProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Parts]:
    """The API on stores of its own."""
    require_redis()
    log = tmp_path_factory.mktemp("api") / "log"
    with RedisServer() as redis, own_postgres.database() as dsn:
        api = start_api(redis, dsn, log)
        with httpx.Client(base_url=api.url, timeout=60, headers=CREDENTIALS) as http:
            yield Parts(redis=redis, dsn=dsn, double=ollama, http=http)
        api.kill_all()


@pytest.fixture(autouse=True)
def empty(parts: Parts) -> None:
    """Empty the stores and reset the double."""
    parts.redis.flush()
    rows(parts, "DELETE FROM accepted_tasks")
    parts.double.reset()


def rows(parts: Parts, query: str) -> list[Any]:
    with psycopg.connect(parts.dsn, autocommit=True, connect_timeout=10) as connection:
        cursor = connection.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


def recorded(parts: Parts) -> int:
    return int(rows(parts, "SELECT count(*) FROM accepted_tasks")[0][0])


@contextlib.contextmanager
def workers(parts: Parts, count: int, **settings: str) -> Iterator[list[OrchestrationProcess]]:
    """Start orchestration workers and an embeddings worker."""
    with contextlib.ExitStack() as stack:
        results = settings.get("RESULT_URL", parts.redis.url)
        started = [
            stack.enter_context(OrchestrationProcess(parts.redis.url, parts.dsn, settings)) for _ in range(count)
        ]
        stack.enter_context(WorkerProcess(parts.redis.url, parts.double.url, RESULT_URL=results))
        yield started


def submit(http: httpx.Client, text: str | list[str]) -> str:
    answer = http.post(TASKS, json={"text": text, "model": MODEL})
    assert answer.status_code == 202, answer.text
    return str(answer.headers["location"])


def ended(http: httpx.Client, location: str) -> Any:
    """Return the task's state once it has ended; it is found at every poll until then."""

    def look() -> Any:
        answer = http.get(location)
        assert answer.status_code == 200, answer.text
        return answer.json() if answer.json()["status"] in ("succeeded", "failed") else None

    return eventually(look)


def assert_right(status: Any, texts: list[str]) -> None:
    assert status["status"] == "succeeded", status
    wanted = [expected_vector(MODEL, text) for text in texts]
    np.testing.assert_allclose(status["result"]["embeddings"], wanted, atol=1e-6)


def test_an_emptied_redis_loses_no_accepted_task(parts: Parts) -> None:
    """A hundred tasks: some are held by workers, the others wait."""
    parts.double.behaviour("slow", delay_ms=100)
    with workers(parts, 2, **LATE) as engines:
        eventually(lambda: [engine.events("worker_ready") for engine in engines])
        texts = {submit(parts.http, [f"wiped {number}", f"second {number}"]): number for number in range(100)}
        eventually(lambda: parts.double.stats()["requests"] >= 3)
        parts.redis.flush()
        location = list(texts)[-1]
        assert parts.http.get(location).json()["status"] == "queued"
        parts.double.behaviour("ok")
        for location, number in texts.items():
            assert_right(ended(parts.http, location), [f"wiped {number}", f"second {number}"])
        assert sum(len(engine.events("accepted_task_restored")) for engine in engines) >= 50


def test_rows_of_ended_tasks_are_deleted(parts: Parts) -> None:
    with workers(parts, 2, **QUICK) as engines:
        locations = [submit(parts.http, f"goes {number}") for number in range(30)]
        locations.append(submit(parts.http, "bad [[nan]]"))
        rows(parts, "UPDATE accepted_tasks SET due_at = now()")
        assert {ended(parts.http, location)["status"] for location in locations} == {"succeeded", "failed"}
        eventually(lambda: recorded(parts) == 0)
        assert not any(engine.events("accepted_task_restored") for engine in engines)


def test_a_row_written_by_an_older_version_is_published(parts: Parts) -> None:
    with workers(parts, 1, **QUICK):
        location = record_as_an_older_version_did(parts, "older")
        assert_right(ended(parts.http, location), ["older"])


def record_as_an_older_version_did(parts: Parts, text: str) -> str:
    """Insert a row without the column of the trace, which older versions lack."""
    task_id = uuid.uuid4()
    kwargs = json.dumps({"text": text, "model": MODEL})
    rows(
        parts,
        "INSERT INTO accepted_tasks (task_id, name, kwargs, lane, due_at)"
        f" VALUES ('{task_id}', 'generate_embedding', convert_to('{kwargs}', 'UTF8'), 3, now())",
    )
    return f"/v1/tasks/{task_id}"


def test_unknown_task_ids_are_not_found(parts: Parts) -> None:
    for task_id in ("00000000-0000-0000-0000-000000000000", "no-id", "%00"):
        assert parts.http.get(f"/v1/tasks/{task_id}").status_code == 404


@contextlib.contextmanager
def split(parts: Parts, log: Path) -> Iterator[tuple[Api, RedisServer]]:
    """Start an API that keeps results in a Redis of their own."""
    results = RedisServer()
    try:
        api = parts.another_api(log, RESULT_URL=results.url, **QUICK)
        yield api, results
        api.kill_all()
    finally:
        results.stop()


def test_a_task_is_published_later_if_redis_or_the_api_dies_before_that(parts: Parts, tmp_path: Path) -> None:
    """The client has not received the id of the second task, which runs all the same: the client might have."""
    with split(parts, tmp_path / "log") as (api, results):
        location = accepted_while_redis_is_down(parts, api, results)
        orphan = recorded_by_an_api_that_is_killed(parts, api, results)
        other = parts.another_api(tmp_path / "other", RESULT_URL=results.url)
        with httpx.Client(base_url=other.url) as http, workers(parts, 1, **QUICK, RESULT_URL=results.url):
            assert_right(ended(http, location), ["while", "down"])
            assert_right(ended(http, orphan), ["orphan"])
            eventually(lambda: recorded(parts) == 0)
        other.kill_all()


def accepted_while_redis_is_down(parts: Parts, api: Api, results: RedisServer) -> str:
    with httpx.Client(base_url=api.url, timeout=60) as http:
        results.kill()
        location = submit(http, ["while", "down"])
        assert_unpublished(parts)
        results.restart()
        assert eventually(lambda: http.get(location).json()["status"]) == "queued"
    return location


def recorded_by_an_api_that_is_killed(parts: Parts, api: Api, results: RedisServer) -> str:
    with ThreadPoolExecutor(1) as threads:
        results.pause()
        body = {"text": "orphan", "model": MODEL}
        lost = threads.submit(httpx.post, f"{api.url}{TASKS}", json=body, timeout=60)
        eventually(lambda: recorded(parts) == 2)
        api.kill_all()
        assert isinstance(lost.exception(), httpx.TransportError)
        results.resume()
    [(task_id,)] = rows(parts, "SELECT task_id::text FROM accepted_tasks ORDER BY created_at DESC LIMIT 1")
    assert not results.store.exists("citadel:accepted")
    assert_unpublished(parts)
    return f"/v1/tasks/{task_id}"


def assert_unpublished(parts: Parts) -> None:
    assert not any(parts.redis.store.exists(name) for name in LISTS)


def test_without_postgres_nothing_is_accepted(parts: Parts, own_postgres: PostgresProcess) -> None:
    """Nothing reaches Redis either. Runs last, since it stops the server."""
    own_postgres.stop()
    try:
        for path, body in ((TASKS, {"text": "no", "model": MODEL}), ("/v1/cache/warm", {"texts": ["no"]})):
            answer = parts.http.post(path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
            assert int(answer.headers["retry-after"]) >= 1
        assert not parts.redis.store.exists("citadel:accepted", *LISTS)
    finally:
        own_postgres.start()
    eventually(lambda: parts.http.post(TASKS, json={"text": "yes", "model": MODEL}).status_code == 202)
    assert recorded(parts) == 1
