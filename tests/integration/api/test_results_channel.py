"""The channel on which the API hears of results: a connection that is lost without a word is noticed and replaced."""

import asyncio

import orjson
import pytest
from pydantic import SecretStr

from citadel_common.delivery.accepted_tasks import RESULT_PREFIX
from citadel_common.settings.common import StoreSettings
from citadel_common.stores.redis import connect_async
from citadel_orchestration.api.tasks.calls import PendingResult, ResultListener
from tests.support.faulty_proxy import FaultyProxy
from tests.support.redis_server import RedisProcess

END = orjson.dumps({"status": "SUCCESS", "result": "heard"})
MOST_S = 60.0


async def announced(server: RedisProcess, pending: PendingResult) -> None:
    """Announce the result, which is not stored, until it is heard: no poll can find it."""
    with server.client() as store:
        while not pending.future.done():
            store.publish(RESULT_PREFIX + pending.task_id, END)
            await asyncio.sleep(0.1)


async def heard_after(server: RedisProcess, proxy: FaultyProxy, mode: str) -> object:
    url = server.url.replace(f":{server.port}/", f":{proxy.port('redis')}/")
    client = connect_async(SecretStr(url), StoreSettings(timeout=1))
    listener = ResultListener(client)
    listener.start()
    try:
        async with asyncio.timeout(MOST_S):
            await announced(server, listener.expect())
            proxy.mode("redis", mode)
            proxy.mode("redis")
            pending = listener.expect()
            await announced(server, pending)
            return await listener.wait(pending, timeout=MOST_S)
    finally:
        await listener.stop()
        await client.aclose()


@pytest.mark.parametrize("mode", ["half_open", "vanished", "reset"])
def test_results_are_heard_again_after_the_connection_was_lost(redis_server: RedisProcess, mode: str) -> None:
    with FaultyProxy(redis=redis_server.port) as proxy:
        assert asyncio.run(heard_after(redis_server, proxy, mode)) == "heard"
