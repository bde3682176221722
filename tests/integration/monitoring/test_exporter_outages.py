"""Outages of stores: the metrics of a store that is down are absent, and no scrape fails or waits."""

import pytest

from tests.integration.monitoring.exporter import Exporter
from tests.support.fixtures import require_redis
from tests.support.polling import eventually
from tests.support.postgres_server import PostgresProcess
from tests.support.redis_server import RedisProcess

ALL_UP = {"broker": 1, "results": 1, "cache": 1, "postgres": 1}
OF_POSTGRES = ("runs", "steps", "sweep_lag_seconds")
OF_BROKER = ("queue_ready_messages", "queue_workers", "tasks_ended_total")


@pytest.fixture(scope="module")
def broker():
    require_redis()
    with RedisProcess(durable=True) as server:
        yield server


@pytest.fixture
def exporter(broker, redis_url, postgres_dsn):
    """Yield an exporter; cache and results are on another server than the broker."""
    with Exporter(broker.url, postgres_dsn, CACHE_URL=redis_url, RESULT_URL=redis_url) as exporter:
        assert exporter.scrape().up == ALL_UP
        yield exporter


def test_metrics_of_the_broker_are_absent_until_it_returns(exporter, broker):
    broker.kill()
    scrape = exporter.scrape()
    assert scrape.up == ALL_UP | {"broker": 0}
    assert not any(map(scrape.has, OF_BROKER))
    assert all(map(scrape.has, (*OF_POSTGRES, "cache_entries", "dead_letters")))
    assert scrape.value("exporter_errors_total", source="broker") == 1
    assert scrape.by("role", "redis_memory_used_bytes").keys() == {"results", "cache"}
    broker.restart()
    eventually(lambda: exporter.scrape().up == ALL_UP)
    assert all(map(exporter.scrape().has, OF_BROKER))


def test_metrics_of_postgres_are_absent_until_it_returns(broker, redis_url):
    server = PostgresProcess()
    try:
        with server.database() as dsn, Exporter(broker.url, dsn) as exporter:
            assert exporter.scrape().up == ALL_UP
            server.stop()
            scrape = exporter.scrape()
            assert scrape.up == ALL_UP | {"postgres": 0}
            assert not any(map(scrape.has, OF_POSTGRES))
            assert all(map(scrape.has, OF_BROKER))
            server.start()
            eventually(lambda: exporter.scrape().up == ALL_UP)
    finally:
        server.close()


def test_a_scrape_gives_up_servers_that_hang_until_they_answer_again(broker, redis_url):
    server = PostgresProcess()
    try:
        with server.database() as dsn, Exporter(broker.url, dsn, CACHE_URL=redis_url, EXPORTER__TIMEOUT=2) as exporter:
            eventually(lambda: exporter.scrape().up == ALL_UP)
            with server.frozen(), broker.frozen():
                for _ in range(3):
                    scrape = exporter.scrape()
                    assert scrape.up == {"broker": 0, "results": 0, "cache": 1, "postgres": 0}
                assert exporter.get("/livez") == "ok\n"
            eventually(lambda: exporter.scrape().up == ALL_UP)
    finally:
        server.close()


def test_a_scrape_without_any_store_succeeds():
    with Exporter("redis://127.0.0.1:1/0") as exporter:
        assert set(exporter.scrape().up.values()) == {0}


def test_a_wrong_setting_ends_the_start_and_is_named():
    with pytest.raises(AssertionError, match="CITADEL_EXPORTER__PORT"):
        Exporter("redis://127.0.0.1:1/0", EXPORTER__PORT=99999)


def test_a_taken_port_ends_the_start():
    with Exporter("redis://127.0.0.1:1/0") as first, pytest.raises(AssertionError, match="exporter_cannot_listen"):
        Exporter("redis://127.0.0.1:1/0", EXPORTER__PORT=first.port)
