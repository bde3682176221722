"""Requests and messages made up at random: no process ends, none grows, and each gets an answer that is documented.

The same seed makes the same input. `make fuzz` sends 100,000 of each; see `tests/fuzz/amounts.py`.
"""

from collections.abc import Iterator

import pytest

from tests.fuzz import requests
from tests.fuzz.amounts import AMOUNTS
from tests.fuzz.server import KEY, FuzzedServer, fuzzed_server
from tests.fuzz.watch import watched
from tests.support.fixtures import require_redis
from tests.support.postgres_server import PostgresProcess

pytestmark = pytest.mark.timeout(AMOUNTS.timeout)


@pytest.fixture(scope="module")
def server(postgres_server: PostgresProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FuzzedServer]:
    """The whole server."""
    require_redis()
    with fuzzed_server(postgres_server, tmp_path_factory.mktemp("fuzz") / "log") as server:
        yield server


def test_requests_of_any_kind_get_documented_answers(server: FuzzedServer) -> None:
    with watched(server, warm_up=AMOUNTS.requests // 4) as watch:
        found = requests.send(
            server.api.url, key=KEY, requests=AMOUNTS.requests, seed=AMOUNTS.seed, progress=watch.progress
        )
    print(found.report)
    assert not found.failures, "\n\n".join(f"{name}\n{text}" for name, text in found.failures.items())
    assert {status for _, status in found.statuses if status >= 500} <= requests.DOCUMENTED_FAILURES
    assert found.count(503) < found.requests / 20, "most of a run against a server that refuses tests nothing"
    assert found.count(200) + found.count(202) > found.requests / 10
    assert found.linked > found.requests / 100
    assert "request_crashed" not in server.api.log.read_text()
