"""The rate limit under a burst of connections, with and without Redis."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.api.raw import HOST, connected, read_answer
from tests.integration.api.servers import Api, RedisServer
from tests.support.postgres_server import PostgresProcess

LIMIT = 10
BURST = 200
REQUEST = b"GET /v1/tasks/x HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def statuses_of_a_burst(api: Api) -> list[int]:
    """Open all connections, then send one request on each of them at once."""
    connections = [connected(api.port) for _ in range(BURST)]
    for connection in connections:
        connection.sendall(REQUEST)
    with ThreadPoolExecutor(20) as threads:
        return list(threads.map(_status, connections))


def _status(connection: socket.socket) -> int:
    with connection:
        return read_answer(connection).status


@pytest.mark.parametrize("workers", [1, 2])
def test_the_limit_holds_under_a_burst(
    redis: RedisServer, postgres_server: PostgresProcess, tmp_path: Path, workers: int
) -> None:
    with postgres_server.database() as dsn:
        api = start(redis, dsn, tmp_path, workers)
        try:
            first, second = statuses_of_a_burst(api), statuses_of_a_burst(api)
        finally:
            api.kill_all()
    assert set(first + second) == {404, 429}
    assert (first + second).count(404) == LIMIT


def test_the_limit_holds_while_redis_hangs_and_when_it_is_gone(
    redis: RedisServer, postgres_server: PostgresProcess, tmp_path: Path
) -> None:
    """Each of the two processes allows its half; the route itself needs Redis, so what is allowed is a 503."""
    with postgres_server.database() as dsn:
        api = start(redis, dsn, tmp_path, 2)
        try:
            redis.pause()
            hanging = statuses_of_a_burst(api)
            redis.resume()
            redis.stop()
            gone = statuses_of_a_burst(api)
        finally:
            api.kill_all()
    assert 429 in hanging
    assert len([status for status in hanging + gone if status != 429]) <= LIMIT


def start(redis: RedisServer, dsn: str, directory: Path, workers: int) -> Api:
    settings = {"RATE_PER_MINUTE": str(LIMIT), "WORKERS": str(workers)}
    variables = {f"CITADEL_API__{name}": value for name, value in settings.items()}
    return Api({"CITADEL_BROKER_URL": redis.url, "CITADEL_POSTGRES_DSN": dsn} | variables, directory / "log")
