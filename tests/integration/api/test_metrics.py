"""`/metrics`: those of all server processes, whichever of them answers; and nothing left at the end."""

import re
from pathlib import Path

import httpx

from tests.integration.api.servers import Api, until

COUNT = re.compile(r'^citadel_api_requests_total\{route="/livez",status="200"\} (\S+)$', re.MULTILINE)
REQUESTS = 40


def counted(api: Api) -> float:
    """Requests for `/livez` that the API tells of, on a connection of its own."""
    answer = httpx.get(f"{api.url}/metrics", timeout=10)
    assert answer.status_code == 200
    found = COUNT.search(answer.text)
    return 0.0 if found is None else float(found[1])


def test_metrics_are_those_of_all_server_processes(redis_url: str, postgres_dsn: str, tmp_path: Path) -> None:
    stores = {"CITADEL_BROKER_URL": redis_url, "CITADEL_POSTGRES_DSN": postgres_dsn}
    api = Api(stores | {"CITADEL_API__WORKERS": "2", "TMPDIR": str(tmp_path)}, tmp_path / "log")
    try:
        until(lambda: "api_ready" in api.log.read_text() and api.log.read_text().count("api_ready") == 2, "the start")
        before = counted(api)
        for _ in range(REQUESTS):
            httpx.get(f"{api.url}/livez", timeout=10)
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
        assert httpx.get(f"{api.url}/metrics", timeout=10).status_code == 401
    finally:
        api.kill_all()
