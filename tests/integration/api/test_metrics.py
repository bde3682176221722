"""`/metrics`: the metrics of all server processes, whichever answers; no file is left at the end."""

import os
import re
import signal
from pathlib import Path

from tests.integration.api.servers import Api, until
from tests.support.web import web

COUNT = re.compile(r'^citadel_api_requests_total\{route="/livez",status="200"\} (\S+)$', re.MULTILINE)
BREAKERS = re.compile(r'^citadel_breakers_open\{backend="postgresql"\} (\S+)$', re.MULTILINE)
REQUESTS = 40


def values(api: Api, pattern: re.Pattern[str]) -> list[float]:
    """Return the values of the matching rows, read over a new connection."""
    answer = web.get(f"{api.url}/metrics", timeout=10)
    assert answer.status_code == 200
    return [float(value) for value in pattern.findall(answer.text)]


def counted(api: Api) -> float:
    """Return the count of requests for `/livez`."""
    return sum(values(api, COUNT))


def test_metrics_are_those_of_all_server_processes(redis_url: str, postgres_dsn: str, tmp_path: Path) -> None:
    stores = {"CITADEL_BROKER_URL": redis_url, "CITADEL_POSTGRES_DSN": postgres_dsn}
    api = Api(stores | {"CITADEL_API__WORKERS": "2", "TMPDIR": str(tmp_path)}, tmp_path / "log")
    try:
        until(lambda: "api_ready" in api.log.read_text() and api.log.read_text().count("api_ready") == 2, "the start")
        before = counted(api)
        for _ in range(REQUESTS):
            web.get(f"{api.url}/livez", timeout=10)
        until(lambda: counted(api) == before + REQUESTS, "the count")
        assert {counted(api) for _ in range(10)} == {before + REQUESTS}
        assert list(tmp_path.glob("citadel-api-*"))
        assert api.terminate() == 0
    finally:
        api.kill_all()
    assert not list(tmp_path.glob("citadel-api-*"))


def test_metrics_need_a_key_where_there_are_keys(redis_url: str, postgres_dsn: str, tmp_path: Path) -> None:
    key = '[{"name": "a", "hash": "' + "0" * 64 + '", "scopes": ["read"]}]'
    stores = {"CITADEL_BROKER_URL": redis_url, "CITADEL_POSTGRES_DSN": postgres_dsn, "CITADEL_API__WORKERS": "1"}
    api = Api(stores | {"CITADEL_API__KEYS": key}, tmp_path / "log")
    try:
        assert web.get(f"{api.url}/metrics", timeout=10).status_code == 401
    finally:
        api.kill_all()


def test_gauges_are_the_sum_of_the_server_processes_that_live(redis_url: str, tmp_path: Path) -> None:
    """Two processes know that PostgreSQL is down; one is killed and replaced."""
    stores = {"CITADEL_BROKER_URL": redis_url, "CITADEL_POSTGRES_DSN": "postgresql://nobody@127.0.0.1:1/none"}
    api = Api(stores | {"CITADEL_API__WORKERS": "2"}, tmp_path / "log")

    def both_know() -> bool:
        web.get(f"{api.url}/readyz", timeout=10)
        return values(api, BREAKERS) == [2]

    try:
        until(lambda: api.log.read_text().count("api_ready") == 2, "the start")
        until(both_know, "an outage that both processes know of")
        victim = next(pid for pid in sorted(api.family) if pid != api.process.pid)
        os.kill(victim, signal.SIGKILL)
        until(lambda: api.log.read_text().count("api_ready") == 3, "its successor")
        until(both_know, "an outage that the successor knows of too")
    finally:
        api.kill_all()
