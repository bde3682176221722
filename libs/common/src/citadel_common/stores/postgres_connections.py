"""Connections that PostgreSQL takes, against those that a process may open: checked once, at its start.

Behind a connection pooler nothing is checked: the server's limit is not the pooler's, and the pooler tells its own
(`max_client_conn`, `default_pool_size`) to its administrators only.
"""

from dataclasses import dataclass

import structlog

from citadel_common.stores.db import CONNECTION_LIMITS, PostgresConnection

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Room:
    """One limit of connections.

    Attributes:
        limit: Connections that may be open.
        used: Connections that are open, the asking one included.
        source: Where the limit is set.
    """

    limit: int
    used: int
    source: str


def rooms_of(connection: PostgresConnection) -> list[Room]:
    """Return the limits that hold for the connection's role and database.

    Raises:
        psycopg.Error: The server does not answer.
    """
    [(most, reserved, of_role, of_database, used, in_database, by_role)] = connection.execute(
        CONNECTION_LIMITS
    ).fetchall()
    kept = f", of which {reserved} are reserved" if reserved else ""
    found = [Room(limit=most - reserved, used=used, source=f"max_connections is {most}{kept}")]
    if of_database >= 0:
        found.append(Room(limit=of_database, used=in_database, source="CONNECTION LIMIT of the database"))
    if of_role >= 0:
        found.append(Room(limit=of_role, used=by_role, source="CONNECTION LIMIT of the role"))
    return found


def connections_problem(connection: PostgresConnection, own: int) -> str | None:
    """Return why the process can never open its `own` connections; warn where only others are in its way now."""
    if connection.pooled:
        log.info("postgres_connections_not_checked", reason="a connection pooler stands before the server", own=own)
        return None
    for room in rooms_of(connection):
        if own > room.limit:
            return (
                f"this process may open {own} connections, and PostgreSQL takes {room.limit} ({room.source}): raise"
                " that, or lower CITADEL_POSTGRES__POOL_SIZE, or CITADEL_API__WORKERS"
            )
        if own > room.limit - room.used + 1:
            log.warning(
                "postgres_connections_short",
                own=own,
                free=max(0, room.limit - room.used + 1),
                limit=room.limit,
                source=room.source,
                help="docs/stores.md tells how many all processes need",
            )
    return None
