"""What a server's failures become."""

import asyncio

import pytest
from structlog.testing import capture_logs

from citadel_common.deadline import Deadline
from citadel_common.errors import (
    DeadlineExceeded,
    NotFound,
    PayloadTooLarge,
    VectorStoreRefused,
    VectorStoreUnavailable,
)
from citadel_common.settings.qdrant import QdrantSettings
from citadel_orchestration.vectors.points import Point
from tests.doubles.process import QdrantProcess
from tests.integration.vectors.conftest import open_store
from tests.support.child import free_port
from tests.support.polling import eventually

QUERY = "POST /collections/docs/points/query"
POINTS = [Point(id=1, vector=[1.0, 0.0])]


@pytest.fixture
def settings(qdrant):
    return QdrantSettings(url=qdrant.url, patience=0)


def search(store):
    return store.search("docs", [1.0, 0.0])


@pytest.mark.parametrize(
    ("mode", "error", "words"),
    [
        ("dead", VectorStoreUnavailable, "does not answer"),
        ("error500", VectorStoreUnavailable, "status 500: Service internal error"),
        ("html502", VectorStoreUnavailable, "status 502"),
        ("rate429", VectorStoreUnavailable, "limits the rate"),
        ("garbage_json", VectorStoreUnavailable, "cannot be read"),
        ("unauthorized401", VectorStoreRefused, "CITADEL_QDRANT__API_KEY"),
        ("missing_collection", NotFound, "there is no 'docs'"),
        ("wrong_dimension", VectorStoreRefused, "'docs' holds vectors of 768 dimensions, not 384"),
    ],
)
@pytest.mark.parametrize("operation", [search, lambda store: store.upsert("docs", POINTS)])
def test_a_failure_has_its_error(qdrant, with_store, mode, error, words, operation):
    with_store(lambda store: store.upsert("docs", POINTS))
    qdrant.behaviour(mode)

    with pytest.raises(error, match=words):
        with_store(operation)


def test_an_answer_over_its_limit_is_not_read(qdrant, with_store):
    points = [Point(id=n, vector=[1.0, 0.0], payload={"text": "x" * 1000}) for n in range(50)]
    with_store(lambda store: store.upsert("docs", points))

    with pytest.raises(PayloadTooLarge, match=r"\(qdrant.max_response_bytes\) of 20,000 bytes"):
        with_store(
            lambda store: store.search("docs", [1.0, 0.0], limit=50),
            QdrantSettings(url=qdrant.url, patience=0, max_response_bytes=20_000),
        )
    assert len(with_store(lambda store: store.search("docs", [1.0, 0.0], limit=50))) == 50


@pytest.mark.parametrize("mode", ["hang", "slow"])
def test_a_silent_server_is_given_up(qdrant, with_store, mode):
    qdrant.behaviour(mode, delay_ms=60_000)

    with pytest.raises(VectorStoreUnavailable, match=r"within 0\.2 s"):
        with_store(search, QdrantSettings(url=qdrant.url, timeout=0.2, patience=0))
    with pytest.raises(VectorStoreUnavailable, match=r"within 0\.2 s"):
        with_store(lambda store: store.health(), QdrantSettings(url=qdrant.url, timeout=0.2))


def test_a_server_that_is_merely_slow_is_waited_for(qdrant, with_store):
    with_store(lambda store: store.upsert("docs", POINTS))
    qdrant.behaviour("slow", delay_ms=300)

    assert len(with_store(search)) == 1


def test_a_store_recovers_with_its_server(qdrant, with_store):
    async def work(store):
        await store.upsert("docs", POINTS)
        await asyncio.to_thread(qdrant.behaviour, "error500", for_requests=1)
        with pytest.raises(VectorStoreUnavailable):
            await search(store)
        return await search(store)

    assert len(with_store(work)) == 1


def test_a_server_that_is_not_there_is_unavailable(with_store):
    nowhere = QdrantSettings(url=f"http://127.0.0.1:{free_port()}", patience=0)

    with pytest.raises(VectorStoreUnavailable, match="CITADEL_QDRANT__URL"):
        with_store(search, nowhere)
    with pytest.raises(VectorStoreUnavailable, match="does not answer"):
        with_store(lambda store: store.health(), nowhere)


@pytest.mark.parametrize("mode", ["not_ready", "error500", "dead"])
def test_a_server_that_is_not_ready_is_unavailable(qdrant, with_store, mode):
    qdrant.behaviour(mode)

    with pytest.raises(VectorStoreUnavailable):
        with_store(lambda store: store.health())


def test_a_write_that_was_cut_short_can_be_repeated(qdrant, with_store):
    points = [Point(id=index, vector=[1.0, index / 250]) for index in range(250)]
    with_store(lambda store: store.upsert("docs", POINTS))

    async def work(store):
        await asyncio.to_thread(qdrant.behaviour, "error500", only_route="/points", for_requests=1)
        with pytest.raises(VectorStoreUnavailable):
            await store.upsert("docs", points)
        await store.upsert("docs", points)
        return await store.search("docs", [1.0, 0.0], limit=1000)

    assert len(with_store(work)) == 250


def test_the_key_is_sent_and_a_wrong_one_refused():
    with QdrantProcess(api_key="s3cret") as server:

        async def listed(key):
            async with open_store(QdrantSettings(url=server.url, api_key=key)) as store:
                return await store.collections()

        with capture_logs() as logs:
            assert asyncio.run(listed("s3cret")) == {}
        assert logs == []
        for key in (None, "guessed"):
            with pytest.raises(VectorStoreRefused, match="API_KEY"):
                asyncio.run(listed(key))


def test_a_deadline_bounds_the_wait(qdrant, with_store):
    qdrant.behaviour("hang")

    with pytest.raises((VectorStoreUnavailable, DeadlineExceeded)):
        with_store(lambda store: store.search("docs", [1.0, 0.0], deadline=Deadline.after(0.2)))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_calls_that_are_cancelled_twice_take_no_connection_with_them(qdrant, with_store, steps):
    """Two time limits that end together, the second while the connection is being closed."""
    with_store(lambda store: store.upsert("docs", POINTS))

    async def work(store):
        await asyncio.to_thread(qdrant.behaviour, "hang", only_route="points/query")
        asked = asyncio.create_task(search(store))
        await asyncio.to_thread(eventually, lambda: QUERY in qdrant.stats()["requests"])
        asked.cancel()
        for _ in range(steps):
            await asyncio.sleep(0)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await asyncio.to_thread(qdrant.behaviour, "ok")
        return await search(store)

    assert len(with_store(work, QdrantSettings(url=qdrant.url, connections=1))) == 1
