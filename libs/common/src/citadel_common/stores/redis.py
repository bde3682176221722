"""Redis clients with timeouts, sync and async, for every kind of address that `settings.redis_url` reads."""

from typing import Any

import redis
import redis.asyncio as aioredis
from pydantic import SecretStr
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelPool
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from citadel_common.redaction import without_credentials
from citadel_common.settings.common import StoreSettings
from citadel_common.settings.redis_url import RedisAddress, redis_address

ERRORS: tuple[type[Exception], ...] = (redis.RedisError, OSError)
"""Exceptions of a store that is down, slow or refusing."""


def connect(url: SecretStr, settings: StoreSettings) -> "redis.Redis":
    """Return a client; its connections open at first use."""
    address = redis_address(url.get_secret_value())
    options = _options(address, settings) | {"retry": Retry(NoBackoff(), 1)}
    if address.is_sentinel:
        sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
            address.servers, sentinel_kwargs=_of_sentinels(options, address, settings), **options
        )
        master: redis.Redis = sentinel.master_for(master_of(address, settings), **options)
        return master
    return redis.Redis(**_place(address), **options)


def connect_async(
    url: SecretStr, settings: StoreSettings, *, timeout: float | None = None, max_connections: int = 64
) -> "aioredis.Redis":
    """Return an asyncio client; it belongs to the loop that first uses it.

    Commands beyond `max_connections` at once wait for a connection as long as for an answer. redis-py's own default
    would fail them at once, as if Redis were down.
    """
    address = redis_address(url.get_secret_value())
    options = _options(address, settings) | {"retry": AsyncRetry(NoBackoff(), 1)}
    if timeout is not None:
        options |= {
            "socket_timeout": timeout,
            "socket_connect_timeout": min(timeout, options["socket_connect_timeout"]),
        }
    pool = {"max_connections": max_connections, "timeout": options["socket_timeout"]}
    if address.is_sentinel:
        sentinel: Any = AsyncSentinel(  # type: ignore[no-untyped-call]
            address.servers, sentinel_kwargs=_of_sentinels(options, address, settings), **options
        )
        kind = _TlsMasterConnection if address.tls is not None else _MasterConnection
        master: aioredis.Redis = sentinel.master_for(
            master_of(address, settings),
            connection_pool_class=_SentinelPool,
            **(options | pool | {"connection_class": kind}),
        )
        return master
    return aioredis.Redis.from_pool(aioredis.BlockingConnectionPool(**(_connection(address, options) | pool)))


class _SentinelPool(AsyncSentinelPool, aioredis.BlockingConnectionPool):
    """Pool of connections to the master, in which commands wait for a free one."""


class _Reporting(AbstractConnection):
    """Connection that reports by the right error that it is closed."""

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send a command.

        Raises:
            ConnectionError: The other end has closed; uvloop raises a RuntimeError then, which redis-py lets pass.
        """
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as error:
            raise redis.ConnectionError("the connection was closed") from error


class _Connection(_Reporting, aioredis.Connection):
    """Connection to a port."""


class _TlsConnection(_Reporting, aioredis.SSLConnection):
    """Connection with TLS."""


class _SocketConnection(_Reporting, aioredis.UnixDomainSocketConnection):
    """Connection to a Unix socket."""


class _MasterConnection(_Reporting, SentinelManagedConnection):
    """Connection to the master that sentinels name."""


class _TlsMasterConnection(_Reporting, SentinelManagedSSLConnection):
    """Connection with TLS to the master that sentinels name."""


def _connection(address: RedisAddress, options: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a pool that `Redis` would derive from its own: class, place and options."""
    if address.path:
        options = {name: value for name, value in options.items() if name != "socket_keepalive"}
        return {"connection_class": _SocketConnection, "path": address.path, **options}
    kind = _TlsConnection if options.pop("ssl", False) else _Connection
    return {"connection_class": kind, **_place(address), **options}


def master_of(address: RedisAddress, settings: StoreSettings) -> str:
    """Return the name under which the sentinels know the master."""
    return address.master or settings.sentinel_master or "mymaster"


def sentinel_arguments(address: RedisAddress, settings: StoreSettings) -> dict[str, Any]:
    """Return the arguments of the sentinels' own clients: their credentials differ, TLS is the master's."""
    own = {"username": settings.sentinel_username, "password": settings.sentinel_password}
    plain = {name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in own.items()}
    return {name: value for name, value in plain.items() if value} | _tls(address)


def timeouts(address: RedisAddress, settings: StoreSettings) -> dict[str, Any]:
    """Return the arguments about time; those of the URL come first."""
    return {
        "socket_timeout": settings.timeout,
        "socket_connect_timeout": settings.connect_timeout,
        "socket_keepalive": True,
        "health_check_interval": settings.health_check_interval,
        **address.options,
    }


def is_full(error: BaseException | None) -> bool:
    """Return whether an error, or one that caused it, says that Redis is at its maxmemory and takes no more."""
    while error is not None:
        if isinstance(error, redis.exceptions.OutOfMemoryError) or _is_full_for_script(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_full_for_script(error: BaseException) -> bool:
    """Return whether a script was refused because there is no memory: Redis 6 says so within an error of the script."""
    return isinstance(error, redis.exceptions.ResponseError) and "-OOM command not allowed" in str(error)


def redacted(url: SecretStr) -> str:
    """Return the address in a URL for messages, without credentials."""
    return without_credentials(url.get_secret_value())


def _options(address: RedisAddress, settings: StoreSettings) -> dict[str, Any]:
    credentials = {"username": address.username, "password": address.password, "db": address.database}
    return timeouts(address, settings) | credentials | _tls(address)


def _tls(address: RedisAddress) -> dict[str, Any]:
    return {} if address.tls is None else {"ssl": True, **address.tls}


def _place(address: RedisAddress) -> dict[str, Any]:
    if address.path:
        return {"unix_socket_path": address.path}
    host, port = address.servers[0]
    return {"host": host, "port": port}


def _of_sentinels(options: dict[str, Any], address: RedisAddress, settings: StoreSettings) -> dict[str, Any]:
    """Return the options of the sentinels' own connections: redis-py tries a dead one ten times before the next."""
    inherited = {name: value for name, value in options.items() if name == "retry" or name.startswith("socket_")}
    return inherited | sentinel_arguments(address, settings)
