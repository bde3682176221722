"""Where a dependency is: as sentences say it, without credentials, and as a socket connects to it."""

import asyncio
import contextlib
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

REDIS_PORT = 6379
SENTINEL_PORT = 26379
POSTGRES_PORT = 5432
UNREADABLE = "an unreadable URL"


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a server listens.

    Attributes:
        shown: For messages; holds no credentials.
        host: Host name or address; empty for a Unix socket.
        port: TCP port.
        path: Unix socket; empty for TCP.
        secrets: What must not appear in any message about it.
    """

    shown: str
    host: str = ""
    port: int = 0
    path: str = ""
    secrets: tuple[str, ...] = ()

    async def accepts(self) -> bool:
        """Whether a connection can be opened; waits for as long as that takes."""
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
    """Of an `http://` or `https://` URL."""
    parts = urlsplit(url)
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
    default = 443 if parts.scheme == "https" else 80
    return Address(
        shown=shown,
        host=parts.hostname or "",
        port=parts.port or default,
        secrets=_secrets(parts.password, parts.query),
    )


def of_redis(url: str) -> Address:
    """Of any URL that names a Redis; of several sentinels, the first one's."""
    servers = url.split(";")
    first = urlsplit(servers[0])
    secrets = tuple(secret for server in servers for secret in _url_secrets(server))
    shown = ";".join(_without_user(server) for server in servers)
    if first.scheme in ("unix", "redis+socket"):
        return Address(shown=shown, path=unquote(first.path), secrets=secrets)
    default = SENTINEL_PORT if first.scheme == "sentinel" else REDIS_PORT
    return Address(shown=shown, host=first.hostname or "localhost", port=first.port or default, secrets=secrets)


def of_postgres(dsn: str) -> Address:
    """Of PostgreSQL's URL; of several hosts, the first one's."""
    try:
        parts = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    except psycopg.Error:  # its message repeats parts of the URL
        return Address(shown=UNREADABLE)
    host, port = parts.get("host", "localhost"), parts.get("port", str(POSTGRES_PORT))
    first, first_port = parts.get("hostaddr", host).split(",")[0], port.split(",")[0] or POSTGRES_PORT
    shown = f"postgresql://{host}:{port}/{parts.get('dbname', '')}"
    secrets = tuple(parts[name] for name in ("password", "sslpassword") if parts.get(name))
    if first.startswith("/"):
        return Address(shown=shown, path=f"{first}/.s.PGSQL.{first_port}", secrets=secrets)
    return Address(shown=shown, host=first, port=int(first_port), secrets=secrets)


def _without_user(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2].partition('?')[0]}"


def _url_secrets(url: str) -> tuple[str, ...]:
    parts = urlsplit(url if "://" in url else f"//{url}")
    return _secrets(parts.password, parts.query)


def _secrets(password: str | None, query: str) -> tuple[str, ...]:
    """Each secret as it is written and as it is meant."""
    values = [value for values in parse_qs(query).values() for value in values if len(value) > 1]
    written = [password, unquote(password)] if password else []
    return tuple(dict.fromkeys([*written, *values]))
