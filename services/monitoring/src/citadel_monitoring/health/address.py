"""Addresses of dependencies: for messages, without credentials, and for connecting."""

import asyncio
import contextlib
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from citadel_common.redaction import passwords_of, servers_of, without_credentials
from citadel_common.settings.redis_url import redis_address
from citadel_contracts import outbound

POSTGRES_PORT = 5432
UNREADABLE = "an unreadable URL"


@dataclass(frozen=True, kw_only=True)
class Address:
    """Address of a server.

    Attributes:
        shown: For messages; contains no credentials.
        host: Host name or address; empty for a Unix socket.
        port: TCP port.
        path: Unix socket; empty for TCP.
        secrets: Texts to hide in messages about it: servers may repeat what they were sent.
    """

    shown: str
    host: str = ""
    port: int = 0
    path: str = ""
    secrets: tuple[str, ...] = ()

    async def accepts(self) -> bool:
        """Open a connection, however long that takes; return whether it worked."""
        opening = (
            asyncio.open_unix_connection(self.path) if self.path else asyncio.open_connection(self.host, self.port)
        )
        try:
            _, writer = await opening
        except OSError:
            return False
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True


def of_http(url: str) -> Address:
    """Return the address in an `http://` or `https://` URL."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return Address(shown=outbound.shown(url), host=parts.hostname or "", port=port, secrets=_secrets(url))


def of_redis(url: SecretStr) -> Address:
    """Return the address in a URL of a Redis, or of the first of its sentinels."""
    written = url.get_secret_value()
    found = redis_address(written)
    shown, secrets = without_credentials(written), _secrets(written)
    if found.path:
        return Address(shown=shown, path=found.path, secrets=secrets)
    host, port = found.servers[0]
    return Address(shown=shown, host=host, port=port, secrets=secrets)


def of_postgres(dsn: SecretStr) -> Address:
    """Return the address in PostgreSQL's URL; the first one of several hosts."""
    try:
        parts = {name: str(value) for name, value in conninfo_to_dict(dsn.get_secret_value()).items()}
    except psycopg.Error:  # its message repeats parts of the URL
        return Address(shown=UNREADABLE)
    host, port = parts.get("host", "localhost"), parts.get("port", str(POSTGRES_PORT))
    first, first_port = parts.get("hostaddr", host).split(",")[0], port.split(",")[0] or POSTGRES_PORT
    shown = f"postgresql://{host}:{port}/{parts.get('dbname', '')}"
    secrets = tuple(parts[name] for name in ("password", "sslpassword") if parts.get(name))
    if first.startswith("/"):
        return Address(shown=shown, path=f"{first}/.s.PGSQL.{first_port}", secrets=secrets)
    return Address(shown=shown, host=first, port=int(first_port), secrets=secrets)


def _secrets(url: str) -> tuple[str, ...]:
    """Return the passwords, and the values of the query, any of which may be a key."""
    queries = (parse_qs(urlsplit(server).query) for server in servers_of(url))
    values = (value for query in queries for values in query.values() for value in values if len(value) > 1)
    return tuple(dict.fromkeys([*passwords_of(url), *values]))
