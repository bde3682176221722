"""The backlog of orchestration: new runs are refused while too many steps wait, and nothing else is."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.api.servers import Api, RedisServer
from tests.integration.api.stack import BATCHES, NDJSON, WAIT
from tests.support.engine_db import EngineDatabase
from tests.support.planted import CREDENTIALS, planted
from tests.support.polling import eventually
from tests.support.postgres_server import PostgresProcess

LIMIT = 3
RUN = {"workflow_id": "w", "steps": [WAIT]}
"""No worker runs: its step stays ready."""
SUBMISSIONS: dict[str, Callable[[httpx.Client], httpx.Response]] = {
    "workflow": lambda http: http.post("/v1/workflows", json=RUN),
    "search": lambda http: http.post("/v1/collections/c/search", json={"embedding": [0.1, 0.2]}),
    "points": lambda http: http.post("/v1/collections/c/points", json={"points": [{"id": 1, "embedding": [0.1]}]}),
    "batch": lambda http: http.post(BATCHES, json={"requests": [{"text": "t"}]}),
    "NDJSON": lambda http: http.post(BATCHES, content=b'{"text": "t"}\n', headers=NDJSON),
    "retry": lambda http: http.post(f"/v1/runs/{_cancelled(http)}/retry"),
}


def _cancelled(http: httpx.Client) -> str:
    [run] = http.get("/v1/runs?status=cancelled&limit=1").json()["runs"]
    found: str = run["run_id"]
    return found


@pytest.fixture(scope="module")
def dsn(postgres_server: PostgresProcess) -> Iterator[str]:
    with postgres_server.database() as dsn:
        yield dsn


@pytest.fixture(scope="module")
def db(dsn: str) -> Iterator[EngineDatabase]:
    with EngineDatabase(dsn, owner=None) as db:
        yield db


@pytest.fixture(scope="module")
def limited(api_redis: RedisServer, dsn: str, models: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API that takes no run while three steps wait."""
    settings = {
        "CITADEL_BROKER_URL": api_redis.url,
        "CITADEL_POSTGRES_DSN": dsn,
        "CITADEL_API__WORKERS": "1",
        "CITADEL_WORKFLOWS__MAX_BACKLOG": str(LIMIT),
    }
    api = Api(settings, tmp_path_factory.mktemp("api") / "log")
    yield api
    api.kill_all()


@pytest.fixture
def http(limited: Api, db: EngineDatabase) -> Iterator[httpx.Client]:
    """Yield a client of it; no run is recorded, and the API has counted that."""
    db.rows("DELETE FROM runs")
    with httpx.Client(base_url=limited.url, timeout=60, headers=CREDENTIALS) as client:
        eventually(lambda: client.post("/v1/workflows", json=RUN).status_code == 202)
        db.rows("DELETE FROM runs")
        yield client


def submit(http: httpx.Client, definition: dict[str, Any] = RUN) -> httpx.Response:
    return http.post("/v1/workflows", json=definition)


def fill(http: httpx.Client) -> list[str]:
    """Submit runs until one is refused; return the ids of those that were taken."""
    taken: list[str] = []

    def is_full() -> bool:
        answer = submit(http)
        taken.extend([answer.json()["run_id"]] if answer.status_code == 202 else [])
        return answer.status_code == 503

    eventually(is_full)
    return taken


@pytest.mark.parametrize("kind", SUBMISSIONS)
def test_a_full_backlog_refuses_each_way_to_submit(http: httpx.Client, kind: str) -> None:
    http.post(f"/v1/runs/{submit(http).json()['run_id']}/cancel")
    fill(http)
    answer = SUBMISSIONS[kind](http)
    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
    assert "3" in answer.json()["detail"]
    # Hardly anything ends, so there is no sense in coming back at once.
    assert 2 < int(answer.headers["retry-after"]) <= 60


def test_refusals_are_counted(http: httpx.Client) -> None:
    fill(http)
    assert 'citadel_submissions_refused_total{reason="backlog"}' in http.get("/metrics").text


def test_a_full_backlog_refuses_no_reading_and_no_command(http: httpx.Client) -> None:
    taken = fill(http)
    for path in ("/v1/runs", f"/v1/runs/{taken[0]}", "/v1/queues"):
        assert http.get(path).status_code == 200
    assert http.post(f"/v1/runs/{taken[0]}/signals/go", json={}).status_code == 202
    assert http.post(f"/v1/runs/{taken[0]}/pause").status_code == 202
    assert http.post(f"/v1/runs/{taken[0]}/resume").status_code == 202
    assert http.post("/v1/workflows/plan", json=RUN).status_code == 200
    assert http.post(f"/v1/runs/{taken[0]}/cancel").status_code == 202


def test_runs_are_taken_again_when_the_backlog_is_gone(http: httpx.Client) -> None:
    for run in fill(http):
        assert http.post(f"/v1/runs/{run}/cancel").status_code == 202
    eventually(lambda: submit(http).status_code == 202)


def test_paused_runs_and_those_held_by_a_key_are_no_backlog(http: httpx.Client) -> None:
    held = RUN | {"concurrency": {"key": "k", "limit": 1}}
    for run in fill(http):
        assert http.post(f"/v1/runs/{run}/pause").status_code == 202
    for _ in range(2 * LIMIT):
        eventually(lambda: submit(http, held).status_code == 202)
    eventually(lambda: submit(http).status_code == 202)


def test_the_wait_that_is_asked_for_follows_the_rate_at_which_runs_end(http: httpx.Client, db: EngineDatabase) -> None:
    fill(http)
    db.rows(
        "INSERT INTO runs (run_id, kind, workflow_id, status, lane, labels, fingerprint, depth, definition, context,"
        " steps_total, unfinished, last_event, finished_at) SELECT gen_random_uuid(), 'workflow', 'w', 'succeeded', 3,"
        " '{}', '', 0, '{}', '{}', 0, 0, 0, now() FROM generate_series(1, 40)"
    )
    eventually(lambda: submit(http).headers.get("retry-after") == "1")


def test_one_caller_cannot_take_the_whole_backlog(
    http: httpx.Client, api_redis: RedisServer, dsn: str, tmp_path: Path
) -> None:
    secrets = [planted("first-key"), planted("second-key")]
    digests = [hashlib.sha256(secret.encode()).hexdigest() for secret in secrets]
    keys = [{"name": digest[:4], "hash": digest, "scopes": ["read", "submit"]} for digest in digests]
    settings = {
        "CITADEL_BROKER_URL": api_redis.url,
        "CITADEL_POSTGRES_DSN": dsn,
        "CITADEL_API__WORKERS": "1",
        "CITADEL_API__KEYS": json.dumps(keys),
        "CITADEL_WORKFLOWS__MAX_BACKLOG": "10",
        "CITADEL_WORKFLOWS__MAX_BACKLOG_PER_CALLER": "2",
    }
    api = Api(settings, tmp_path / "log")
    try:
        first, second = (
            httpx.Client(base_url=api.url, timeout=60, headers={"authorization": f"Bearer {secret}"})
            for secret in secrets
        )
        with first, second:
            fill(first)
            assert submit(first).json()["code"] == "overloaded"
            assert "of this caller" in submit(first).json()["detail"]
            assert submit(second).status_code == 202
    finally:
        api.kill_all()


def test_a_concurrency_key_takes_so_many_runs_and_no_more(
    api_redis: RedisServer, dsn: str, db: EngineDatabase, tmp_path: Path
) -> None:
    db.rows("DELETE FROM runs")
    keyed = RUN | {"concurrency": {"key": "line", "limit": 1}}
    settings = {
        "CITADEL_BROKER_URL": api_redis.url,
        "CITADEL_POSTGRES_DSN": dsn,
        "CITADEL_API__WORKERS": "1",
        "CITADEL_WORKFLOWS__MAX_RUNS_PER_KEY": "3",
    }
    api = Api(settings, tmp_path / "log")
    try:
        with httpx.Client(base_url=api.url, timeout=60, headers=CREDENTIALS) as http:
            eventually(lambda: submit(http, keyed).status_code == 503)
            refused = submit(http, keyed)
            assert (refused.json()["code"], refused.headers["retry-after"]) == ("overloaded", "60")
            assert "concurrency key 'line'" in refused.json()["detail"]
            assert submit(http).status_code == 202
            for run in http.get("/v1/runs?status=queued").json()["runs"]:
                http.post(f"/v1/runs/{run['run_id']}/cancel")
            eventually(lambda: submit(http, keyed).status_code == 202)
    finally:
        api.kill_all()
