"""Every kind of Redis address, for every client that Citadel opens: redis-py, kombu, the result backend, the probe."""

import asyncio

import pytest
from pydantic import SecretStr

from citadel_common.delivery.redelivery import Reclaimer
from citadel_common.delivery.worker_registry import WorkerIdentity, WorkerRegistry, held_message_keys
from citadel_common.settings.common import CommonSettings
from citadel_common.stores.redis import connect, connect_async
from citadel_common.stores.startup_checks import redis_problem
from citadel_common.stores.token_lock import TokenLock
from citadel_common.tasks.app import create_app
from citadel_common.telemetry import NULL_METRICS
from citadel_contracts import Queue
from citadel_monitoring.health import address
from citadel_monitoring.health.probes import redis as probe
from tests.support.redis_addresses import ADDRESSES

NAME = Queue.EMBEDDINGS.value


@pytest.fixture(scope="module", params=ADDRESSES.values(), ids=ADDRESSES)
def settings(request):
    """Settings that name a server behind one kind of address."""
    with request.param() as url:
        yield CommonSettings(broker_url=SecretStr(url))


def close(client):
    """Close a client's connections, including those to sentinels."""
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    for opened in (client, *getattr(manager, "sentinels", ())):
        opened.close()


def test_clients_of_redis_reach_the_named_database(settings):
    client = connect(settings.broker_url, settings.stores)
    client.set("place", "here")

    async def read():
        other = connect_async(settings.broker_url, settings.stores)
        try:
            return await other.get("place")
        finally:
            await probe.close(other)

    assert asyncio.run(read()) == b"here"
    assert TokenLock(client, "lock", "me", ttl=5).take()
    close(client)


def test_messages_of_a_dead_worker_come_back(settings):
    holder = WorkerIdentity.of_this_process(NAME)
    app = create_app(settings, queue=Queue.EMBEDDINGS, **held_message_keys(holder.id))
    client = connect(settings.broker_url, settings.stores)
    app.send_task("held", queue=NAME, ignore_result=True)
    with app.connection_for_read() as connection:
        assert connection.default_channel.basic_get(NAME) is not None
        WorkerRegistry(client).beat(
            holder, concurrency=1, running=1, processed=0, failed=0, started_at=0.0, stopped=True
        )
        assert Reclaimer(client, NULL_METRICS, dead_after=60).reclaim(own_id="other") == 1
        assert connection.default_channel.basic_get(NAME, no_ack=True).headers["task"] == "held"
    close(client)
    app.close()


def test_results_are_stored_and_read(settings):
    app = create_app(settings, queue=Queue.EMBEDDINGS)
    app.backend.store_result("one", {"answer": 42}, "SUCCESS")
    assert app.backend.get_task_meta("one")["result"] == {"answer": 42}
    close(app.backend.client)
    app.close()


def test_the_health_probe_finds_nothing_wrong(settings):
    async def check():
        where = address.of_redis(settings.broker_url)
        return await where.accepts(), await probe.ping(settings.broker_url, settings.stores, 5.0)

    accepts, problem = asyncio.run(check())
    assert problem is None
    assert accepts or settings.broker_url.get_secret_value().startswith("sentinel")  # whose first one is dead
    assert redis_problem(settings.broker_url, settings.stores) is None
