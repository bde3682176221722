"""Requests and messages made up at random: no process ends, none grows, and each gets an answer that is documented.

The same seed makes the same input. `make fuzz` sends 100,000 of each; see `tests/fuzz/amounts.py`.
"""

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.fuzz import requests
from tests.fuzz.amounts import AMOUNTS
from tests.fuzz.messages import INTERNAL, TASKS, Messages
from tests.fuzz.reconcile import Reconciler
from tests.fuzz.server import KEY, FuzzedServer, fuzzed_server
from tests.fuzz.watch import watched
from tests.support.fixtures import require_redis
from tests.support.postgres_server import PostgresProcess

BATCH = min(5000, AMOUNTS.messages * 3 // 4)
"""Messages sent at once, before their ends are looked at."""
OTHERS = tuple(name for name in TASKS if name not in INTERNAL)
pytestmark = pytest.mark.timeout(AMOUNTS.timeout)


@pytest.fixture(scope="module")
def server(postgres_server: PostgresProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FuzzedServer]:
    """The whole server."""
    require_redis()
    with fuzzed_server(postgres_server, tmp_path_factory.mktemp("fuzz") / "log") as server:
        yield server


def test_each_message_ends_in_a_result_an_error_or_a_dead_letter(server: FuzzedServer) -> None:
    messages, kinds, sent = Messages(AMOUNTS.seed), Counter[str](), 0
    with watched(server, warm_up=AMOUNTS.messages // 4) as watch, server.redis.client() as store:
        reconciler = Reconciler(server, store)
        while sent < AMOUNTS.messages:
            # The engine's own tasks come alone: their ends are counted, and runs would add to the counts.
            names = OTHERS if sent < AMOUNTS.messages * 3 // 4 else INTERNAL
            batch = list(messages.some(min(BATCH, AMOUNTS.messages - sent), names))
            ends = reconciler.send(batch)
            assert not ends.unknown, "\n".join(each.shown for each in ends.unknown[:20])
            kinds += ends.kinds
            sent += len(batch)
            watch.progress(sent)
            print(f"{sent} messages: {dict(kinds)}")
    assert {"SUCCESS", "FAILURE", "REVOKED", "dead letter without an id"} <= kinds.keys()


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
