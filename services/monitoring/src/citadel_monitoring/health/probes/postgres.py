"""Probe of PostgreSQL: it answers on a connection of the probe's own, and takes changes."""

import asyncio
import math

import psycopg
from psycopg import pq
from pydantic import SecretStr

from citadel_common.stores.postgres_target import PostgresTarget
from citadel_monitoring.health.address import UNREADABLE

_CREDENTIALS = ("authentication failed", "no password supplied", "pg_hba.conf", "role ")


async def select_one(dsn: SecretStr, timeout: float) -> str | None:
    """Return the problem of PostgreSQL; None if it answers.

    Args:
        dsn: Address of the server.
        timeout: Seconds the connection may take to open; the caller bounds the whole.
    """
    try:
        target = PostgresTarget.of(dsn, name="monitoring-check", connect_timeout=math.ceil(timeout))
        connection = await psycopg.AsyncConnection.connect(target.conninfo, autocommit=True)
    except (ValueError, psycopg.ProgrammingError):
        return f"has {UNREADABLE}"
    except (psycopg.Error, OSError) as error:
        return _refused(str(error))
    try:
        problem = await _problem(connection.pgconn)
    except psycopg.Error as error:
        return f"does not answer: {_line(str(error))}"
    finally:
        connection.pgconn.finish()  # at once: close() alone may wait for the server
        await connection.close()
    return problem


async def _problem(connection: "pq.abc.PGconn") -> str | None:
    """Send a query and return the problem that its result shows."""
    # By libpq and not by a cursor: a cursor that is cancelled asks the server to end the query and waits for the
    # answer, and a server that hangs never gives one.
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    connection.send_query(b"SHOW in_hot_standby")
    loop.add_reader(connection.socket, readable.set)
    try:
        connection.flush()
        while connection.is_busy():
            await readable.wait()
            readable.clear()
            connection.consume_input()
    finally:
        loop.remove_reader(connection.socket)
    result = connection.get_result()
    if result is None or result.status != pq.ExecStatus.TUPLES_OK:
        return "does not answer SHOW in_hot_standby"
    return "is a read-only standby" if result.get_value(0, 0) == b"on" else None


def _refused(said: str) -> str:
    if "FATAL:" not in said:
        return f"is not reachable: {_line(said)}"
    fatal = _line(said.rpartition("FATAL:")[2])
    if any(sign in fatal for sign in _CREDENTIALS):
        return f"refuses the credentials: {fatal}"
    return f"refuses connections: {fatal}"


def _line(text: str) -> str:
    return text.strip().partition("\n")[0]
