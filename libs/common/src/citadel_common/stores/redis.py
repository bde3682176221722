"""Redis clients with timeouts, sync and async; `sentinel://` and TLS URLs work."""

from typing import Any
from urllib.parse import unquote, urlsplit

import redis
import redis.asyncio as aioredis
from pydantic import SecretStr
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from citadel_common.redaction import without_credentials
from citadel_common.settings.common import StoreSettings

ERRORS: tuple[type[Exception], ...] = (redis.RedisError, OSError)
"""Exceptions of a store that is down, slow or refusing."""


def connect(url: SecretStr, settings: StoreSettings) -> "redis.Redis":
    """Return a client; its connections open at first use."""
    options = _options(settings) | {"retry": Retry(NoBackoff(), 1)}
    address = url.get_secret_value()
    if address.startswith("sentinel://"):
        sentinel: Any = Sentinel(_sentinels(address), sentinel_kwargs=_sentinel_options(options), **options)  # type: ignore[no-untyped-call]
        master: redis.Redis = sentinel.master_for(_master(settings), **options, **_auth(address))
        return master
    return redis.Redis.from_url(_plain(address), **options)


def connect_async(
    url: SecretStr, settings: StoreSettings, *, timeout: float | None = None, max_connections: int = 64
) -> "aioredis.Redis":
    """Return an asyncio client; it belongs to the loop that first uses it."""
    options = _options(settings) | {"retry": AsyncRetry(NoBackoff(), 1), "max_connections": max_connections}
    if timeout is not None:
        options |= {
            "socket_timeout": timeout,
            "socket_connect_timeout": min(timeout, settings.connect_timeout),
        }
    address = url.get_secret_value()
    if address.startswith("sentinel://"):
        sentinel: Any = AsyncSentinel(_sentinels(address), sentinel_kwargs=_sentinel_options(options), **options)  # type: ignore[no-untyped-call]
        master: aioredis.Redis = sentinel.master_for(_master(settings), **options, **_auth(address))
        return master
    return aioredis.Redis.from_url(_plain(address), **options)


def redacted(url: SecretStr) -> str:
    """Return scheme, host, port and path of a URL, without user and password."""
    return without_credentials(url.get_secret_value())


def _options(settings: StoreSettings) -> dict[str, Any]:
    return {
        "socket_timeout": settings.timeout,
        "socket_connect_timeout": settings.connect_timeout,
        "socket_keepalive": True,
        "health_check_interval": settings.health_check_interval,
    }


def _sentinel_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of the sentinels' own connections: redis-py tries a dead one ten times before the next."""
    return {name: value for name, value in options.items() if name == "retry" or name.startswith("socket_")}


def _plain(address: str) -> str:
    return address.replace("redis+socket://", "unix://", 1)


def _sentinels(address: str) -> list[tuple[str, int]]:
    hosts = (part.rpartition("@")[2].split("/")[0] for part in address.replace("sentinel://", "").split(";"))
    pairs = (host.partition(":") for host in hosts)
    return [(name, int(port or 26379)) for name, _, port in pairs]


def _auth(address: str) -> dict[str, Any]:
    first = urlsplit(address.split(";", maxsplit=1)[0])
    user, password = (unquote(part) if part else None for part in (first.username, first.password))
    return {"username": user, "password": password, "db": int(first.path.strip("/") or 0)}


def _master(settings: StoreSettings) -> str:
    return settings.sentinel_master or "mymaster"
