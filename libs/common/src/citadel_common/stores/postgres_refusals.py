"""Refusals of PostgreSQL: what only a person can change, told from what passes by itself."""

import re
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import psycopg
from pydantic import SecretStr

from citadel_common.stores.db import SettingRefused, open_connection
from citadel_common.stores.postgres_connections import connections_problem
from citadel_common.stores.postgres_target import PostgresTarget

OLDEST = 14
"""Oldest major version of PostgreSQL that Citadel's statements run on."""
PASSING = ("Connection refused", "timeout expired", "is starting up", "is shutting down", "resolve host")
REFUSALS: Mapping[str, str] = {
    "password authentication failed": "PostgreSQL refuses the user or the password",
    "SASL authentication failed": "PostgreSQL refuses the user or the password",
    "no such user": "the connection pooler does not know the user",
    "no password supplied": "PostgreSQL wants a password, and the DSN has none",
    "no pg_hba.conf entry": "PostgreSQL does not let this user in from here, or not without TLS (pg_hba.conf)",
    "is not permitted to log in": "the role may not log in",
    "no such database": "the connection pooler does not know the database",
    "unsupported startup parameter": "the connection pooler refuses a parameter of the DSN",
    "does not support SSL": "the server does not speak TLS, and sslmode requires it",
    "certificate verify failed": "sslrootcert does not vouch for the server's certificate",
    "root certificate file": "sslmode requires a readable sslrootcert",
    "does not match host name": "the server's certificate is for another host name (sslmode=verify-full)",
    "private key file": "sslkey or sslcert cannot be used",
    "could not read certificate file": "sslkey or sslcert cannot be used",
    "definition of service": "libpq's service file does not define the service",
    "service file": "libpq's service file cannot be read",
}
"""Words of the server, of libpq and of PgBouncer about what only a person can change."""
CODES: Mapping[str, str] = {
    "too many clients already": "53300",
    "remaining connection slots are reserved": "53300",
    "too many connections for": "53300",
    "no more connections allowed": "53300",
    "client_login_timeout": "53300",
    "query_wait_timeout": "53300",
    "is starting up": "57P03",
    "not yet accepting connections": "57P03",
    "is shutting down": "57P03",
}
"""SQLSTATEs of refused connections by the server's or PgBouncer's words: libpq keeps nothing else of them."""
MISSING = re.compile(r'(role|database) "[^"]*" does not exist')


def refusal_of(error: psycopg.Error) -> str | None:
    """Return why a connection can never open with these settings; None if it may open later."""
    said = str(error)
    if isinstance(error, SettingRefused):
        return said
    if not isinstance(error, psycopg.OperationalError) or any(words in said for words in PASSING):
        return None
    if missing := MISSING.search(said):
        return f"PostgreSQL has no such {missing[1]}"
    return next((problem for words, problem in REFUSALS.items() if words in said), None)


def sqlstate_of_refusal(error: psycopg.Error) -> str | None:
    """Return the SQLSTATE with which a connection was refused; None where that is not known."""
    if not isinstance(error, psycopg.OperationalError):
        return None
    found = next((code for words, code in CODES.items() if words in str(error)), None)
    return found or ("28000" if refusal_of(error) else None)


def problem_of(dsn: SecretStr, search_path: str | None, *, patience: float, connections: int = 1) -> str | None:
    """Return why PostgreSQL can never be used with these settings; None if it can, or may later.

    Args:
        dsn: Its address.
        search_path: Schemas of Citadel's objects; the DSN's or the role's if None.
        patience: Seconds that a connection may take to open, and again to answer.
        connections: Connections that the process may open.
    """
    target = PostgresTarget.of(dsn, name="start", search_path=search_path, connect_timeout=patience)
    try:
        with closing(open_connection(target, patience=patience)) as connection:
            return unsupported(connection) or connections_problem(connection, connections)
    except psycopg.Error as error:
        return refusal_of(error)


def unsupported(connection: "psycopg.Connection[Any]") -> str | None:
    """Return why Citadel cannot use the server; None if it can."""
    major = connection.info.server_version // 10_000
    if major < OLDEST:
        return f"the server is PostgreSQL {major}; Citadel needs {OLDEST} or newer"
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        return f"the database's encoding is {encoding}; create it with ENCODING 'UTF8' TEMPLATE template0"
    return None
