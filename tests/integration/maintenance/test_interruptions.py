"""A clean-up that is interrupted: by a kill, a stop, its time limit, or another run."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from citadel_maintenance.jobs.lease import PREFIX as LEASES
from tests.integration.maintenance.conftest import asked
from tests.support.celery_client import TIMEOUT, PlainClient
from tests.support.maintenance import MaintenanceProcess, alive, cached, there
from tests.support.polling import eventually
from tests.support.redis_server import RedisProcess

TASK = "cleanup_expired_cache"
LIVE, GONE = "nomic-embed-text@aaa", "old-model@bbb"
MANY = 3000
# About ten batches a second, so that a test can act in the middle of a run.
SLOW = {"MAINTENANCE__DUTY": "0.01", "MAINTENANCE__SCAN_COUNT": "20"}
Start = Callable[..., MaintenanceProcess]


@pytest.fixture
def start(redis_server: RedisProcess, dsn: str) -> Iterator[Start]:
    """Yield a function that starts workers on an empty Redis; they end with the test."""
    redis_server.flush()
    started: list[MaintenanceProcess] = []

    def one(**settings: Any) -> MaintenanceProcess:
        started.append(MaintenanceProcess(redis_server.url, dsn, settings))
        return started[-1]

    yield one
    for process in started:
        process.__exit__(None, None, None)


@pytest.fixture(scope="module")
def bystander(redis_server: RedisProcess, dsn: str) -> Iterator[PlainClient]:
    """Yield a client of a worker that the module shares, in a database where the other workers take no task."""
    url = redis_server.database(1)
    with MaintenanceProcess(url, dsn), PlainClient(url) as client:
        yield client


@pytest.fixture
def keys(start: Start, store: "redis.Redis") -> tuple[list[str], list[str]]:
    """Return the keys of entries that stay, and of entries to remove."""
    alive(store, LIVE)
    return cached(store, LIVE, MANY), cached(store, GONE, MANY)


@pytest.fixture
def client(redis_server: RedisProcess) -> Iterator[PlainClient]:
    with PlainClient(redis_server.url) as client:
        yield client


def send(client: PlainClient, **kwargs: Any) -> Any:
    return client.publish(TASK, kwargs=kwargs, queue="maintenance")


def wait_for_the_middle(store: "redis.Redis", gone: list[str]) -> None:
    """Wait until some of the entries are removed, and check that others are not."""
    eventually(lambda: there(store, gone) < MANY)
    assert there(store, gone) > 0


def test_after_a_kill_another_worker_finishes_and_nothing_else_is_removed(
    start: Start, store: "redis.Redis", client: PlainClient, keys: tuple[list[str], list[str]]
) -> None:
    kept, gone = keys
    victim = start(**SLOW)
    sent = send(client)
    wait_for_the_middle(store, gone)
    victim.kill()
    assert there(store, kept) == MANY
    start()
    report = sent.get(timeout=TIMEOUT)
    assert report["skipped"] is False
    assert report["finished"] is True
    asked(client, TASK)  # the run above went on from the saved cursor; this one examines everything
    assert there(store, kept) == MANY
    assert there(store, gone) == 0


def test_a_stop_of_the_worker_ends_the_run_with_a_report(
    start: Start, store: "redis.Redis", client: PlainClient, keys: tuple[list[str], list[str]]
) -> None:
    kept, gone = keys
    worker = start(**SLOW)
    sent = send(client)
    wait_for_the_middle(store, gone)
    assert worker.terminate() == 0
    report = sent.get(timeout=TIMEOUT)
    assert (report["success"], report["finished"], report["reason"]) == (True, False, "the worker is stopping")
    assert 0 < report["removed"] < MANY
    assert worker.events("maintenance_done")[-1]["finished"] is False
    assert store.keys(f"{LEASES}*") == []
    assert there(store, kept) == MANY


def test_runs_cut_off_by_their_time_limit_add_up_to_a_whole_one(
    start: Start, store: "redis.Redis", client: PlainClient, keys: tuple[list[str], list[str]]
) -> None:
    kept, gone = keys
    start(**SLOW | {"MAINTENANCE__DUTY": "0.05"})
    first = asked(client, TASK, time_limit=0.2)
    assert (first["finished"], first["reason"]) == (False, "the time limit is reached")
    assert first["statistics"]["complete"] is False
    reports = [first]
    while not reports[-1]["finished"]:
        reports.append(asked(client, TASK, time_limit=0.5))
        assert len(reports) < 200
    assert there(store, gone) == 0
    assert there(store, kept) == MANY
    assert sum(report["removed"] for report in reports) == MANY
    assert sum(report["examined"] for report in reports) < 3 * MANY  # each went on where the one before had stopped
    assert reports[-1]["statistics"]["complete"] is True


def test_a_second_run_is_skipped_but_not_a_dry_run_or_another_task(
    start: Start, store: "redis.Redis", client: PlainClient, keys: tuple[list[str], list[str]]
) -> None:
    _, gone = keys
    start(**SLOW)
    start(**SLOW)
    send(client)
    wait_for_the_middle(store, gone)
    second, dry, other = (
        asked(client, TASK),
        asked(client, TASK, dry_run=True, time_limit=0.1),
        asked(client, "citadel.purge_results"),
    )
    assert (second["success"], second["skipped"], second["finished"]) == (True, True, False)
    assert second["removed"] == 0
    assert dry["skipped"] is other["skipped"] is False


def test_the_lease_of_a_dead_holder_expires(redis_server: RedisProcess, bystander: PlainClient) -> None:
    with redis.Redis.from_url(redis_server.database(1)) as store:
        store.set(f"{LEASES}{TASK}", "a-task-of-a-dead-worker " + "0" * 32, px=500)
        assert asked(bystander, TASK)["skipped"] is True
        eventually(lambda: not store.exists(f"{LEASES}{TASK}"))
    assert asked(bystander, TASK)["skipped"] is False


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        (TASK, {"time_limit": 0}, "time_limit"),
        (TASK, {"time_limit": 99999}, "time_limit"),
        ("citadel.purge_runs", {"dry_run": "yes"}, "dry_run"),
        ("citadel.purge_orphans", {"older": 1}, "older"),
    ],
)
def test_invalid_arguments_are_named(
    bystander: PlainClient, name: str, arguments: dict[str, Any], problem: str
) -> None:
    error = bystander.publish(name, kwargs=arguments, queue="maintenance").get(timeout=TIMEOUT, propagate=False)
    assert problem in str(error)


def test_without_postgres_a_task_fails_clearly_after_its_retries(start: Start, client: PlainClient) -> None:
    start(
        POSTGRES_DSN="postgresql://citadel@127.0.0.1:9/none",
        POSTGRES__TIMEOUT="0.2",
        WORKER__RETRY__MAX_RETRIES="1",
        WORKER__RETRY__BASE="0.05",
    )
    error = client.publish("citadel.purge_runs", queue="maintenance").get(timeout=TIMEOUT, propagate=False)
    assert "PostgreSQL does not answer" in str(error)
