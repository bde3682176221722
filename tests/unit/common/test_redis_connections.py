"""Clients of Redis: connections that the other end has closed, and a server without memory."""

import asyncio
from typing import Any

import pytest
import redis
import uvloop
from pydantic import SecretStr

from citadel_common.settings.common import StoreSettings
from citadel_common.stores.redis import connect_async, is_full


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(b"+OK\r\n" * data.count(b"*"))
    writer.close()


async def _send_on_a_closed_connection() -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    address = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    client = connect_async(SecretStr(address), StoreSettings(timeout=5))
    connection: Any = client.connection_pool.make_connection()
    try:
        await connection.connect()
        connection._writer.transport.abort()
        await asyncio.sleep(0.01)  # the loop tells the transport that it is closed
        await connection.send_command("PING", check_health=False)
    finally:
        await connection.disconnect(nowait=True)
        await client.aclose()
        server.close()


def test_a_connection_that_is_closed_counts_as_lost() -> None:
    with pytest.raises(redis.ConnectionError):
        uvloop.run(_send_on_a_closed_connection())


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), True),
        (
            redis.exceptions.ResponseError(
                "Error running script (call to f_3f): @user_script:2: @user_script: 2:"
                " -OOM command not allowed when used memory > 'maxmemory'."
            ),
            True,
        ),
        (redis.exceptions.ResponseError("Error running script: @user_script:2: wrong number of arguments"), False),
        (redis.exceptions.ConnectionError("OOM"), False),
    ],
)
def test_a_server_without_memory_is_known_by_a_commands_or_a_scripts_error(error: Exception, full: bool) -> None:
    assert is_full(error) is full
