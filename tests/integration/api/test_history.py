"""The history of health checks and metrics."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from citadel_common.history import History
from tests.integration.api.servers import RedisServer

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def recorded(api_redis: RedisServer) -> Iterator[None]:
    """Record a check for each minute of an hour."""
    history = History(api_redis.store, ttl=10**9)
    for minute in range(60):
        history.record("health", {"success": True, "minute": minute}, at=NOON + timedelta(minutes=minute))
    yield
    api_redis.flush()


def minutes(http: httpx.Client, **query: object) -> list[int]:
    answer = http.get("/v1/history/health", params={name: str(value) for name, value in query.items()})
    return [entry["minute"] for entry in answer.raise_for_status().json()["entries"]]


def test_entries_are_listed_newest_first(http: httpx.Client) -> None:
    assert minutes(http) == list(range(59, -1, -1))
    assert minutes(http, limit=3) == [59, 58, 57]


def test_entries_are_selected_by_time(http: httpx.Client) -> None:
    since, until = (NOON + timedelta(minutes=10)).isoformat(), (NOON + timedelta(minutes=13)).isoformat()
    assert minutes(http, since=since, until=until) == [12, 11, 10]
    assert minutes(http, since="2027-01-01T00:00:00Z") == []
    assert minutes(http, until="2026-01-01T12:02:00") == [1, 0]


def test_entries_are_complete(http: httpx.Client) -> None:
    body = http.get("/v1/history/health?limit=1").json()
    assert body == {"kind": "health", "entries": [{"at": "2026-01-01T12:59:00+00:00", "success": True, "minute": 59}]}
    assert http.get("/v1/history/metrics").json() == {"kind": "metrics", "entries": []}


@pytest.mark.parametrize(
    ("path", "status"),
    [("nothing", 404), ("health?limit=1001", 422), ("health?since=soon", 422), ("health?colour=red", 422)],
)
def test_unknown_kinds_and_bad_parameters_are_refused(http: httpx.Client, path: str, status: int) -> None:
    assert http.get(f"/v1/history/{path}").status_code == status
