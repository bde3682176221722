"""The collection catalogue, through a real Redis."""

import asyncio
from datetime import datetime

import orjson
import pytest
from pydantic import SecretStr

from citadel_common.settings.common import StoreSettings
from citadel_common.settings.qdrant import QdrantSettings
from citadel_common.stores.redis import connect_async
from citadel_orchestration.vectors.catalogue import EMPTY, KEY, CollectionPublisher, reader
from citadel_orchestration.vectors.points import Point
from tests.integration.vectors.conftest import open_store
from tests.support.child import free_port


@pytest.fixture
def settings(qdrant, store):
    store.delete(KEY)
    return QdrantSettings(url=qdrant.url)


@pytest.fixture
def with_redis(redis_url, settings):
    """Runs an async function with a vector store and a Redis client."""

    async def run(work):
        async with connect_async(SecretStr(redis_url), StoreSettings()) as client, open_store(settings) as store:
            return await work(store, client)

    return lambda work: asyncio.run(run(work))


async def until(condition):
    """Look again and again; the caller's timeout ends it."""
    while not await condition():  # noqa: ASYNC110  (nobody tells this process)
        await asyncio.sleep(0.01)


async def dimensions(client):
    """Return the published length of the vectors in `docs`."""
    return (await reader(client).refresh()).vectors.get("docs", {}).get("")


def points(size):
    return [Point(id=1, vector=[1.0] * size)]


def test_published_collections_are_read(with_redis):
    async def work(store, client):
        await store.upsert("docs", points(5))
        await CollectionPublisher(store, client).publish()
        return await reader(client).refresh()

    found = with_redis(work)

    assert found.vectors == {"docs": {"": 5}}
    assert datetime.fromisoformat(found.published_at).tzinfo is not None


def test_processes_of_older_versions_read_one_length_per_collection(with_redis):
    async def work(store, client):
        await store.upsert("docs", points(5))
        await store.upsert("named", points(3), vector_name="title")
        await CollectionPublisher(store, client).publish()
        return orjson.loads(await client.get(KEY))["collections"]

    assert with_redis(work) == {"docs": 5, "named": 3}


def test_a_new_collection_is_published_without_waiting(with_redis):
    async def work(store, client):
        publisher = asyncio.create_task(CollectionPublisher(store, client, interval=3600).run())
        async with asyncio.timeout(60):
            await until(lambda: client.exists(KEY))
            assert await dimensions(client) is None
            await store.upsert("docs", points(3))
            await until(lambda: dimensions(client))
        publisher.cancel()
        return await dimensions(client)

    assert with_redis(work) == 3


def test_collections_are_published_again_and_again(with_redis):
    async def work(store, client):
        publisher = asyncio.create_task(CollectionPublisher(store, client, interval=0.01).run())
        async with asyncio.timeout(60):
            for _ in range(3):
                await until(lambda: client.delete(KEY))
        publisher.cancel()

    with_redis(work)


def test_a_published_catalogue_expires(with_redis):
    async def work(store, client):
        await CollectionPublisher(store, client).publish()
        return await client.pttl(KEY)

    assert 0 < with_redis(work) <= 180_000


def test_a_store_that_is_down_leaves_what_was_published(with_redis, qdrant):
    async def work(store, client):
        await store.upsert("docs", points(5))
        publisher = CollectionPublisher(store, client)
        await publisher.publish()
        await asyncio.to_thread(qdrant.behaviour, "error500")
        await publisher.publish()
        return await dimensions(client)

    assert with_redis(work) == 5


def test_without_redis_nothing_is_known_and_nothing_fails(settings):
    async def work():
        nowhere = SecretStr(f"redis://127.0.0.1:{free_port()}/0")
        async with connect_async(nowhere, StoreSettings()) as client, open_store(settings) as store:
            await CollectionPublisher(store, client).publish()
            return await dimensions(client)

    assert asyncio.run(work()) is None


def test_without_a_catalogue_nothing_is_known(with_redis):
    assert with_redis(lambda _, client: reader(client).refresh()) == EMPTY
