"""Probe of Redis: PING."""

import contextlib

import redis
from pydantic import SecretStr

from citadel_common.settings.common import StoreSettings
from citadel_common.stores.redis import ERRORS, connect_async

REFUSALS = (
    redis.exceptions.AuthenticationError,
    redis.exceptions.AuthorizationError,
    redis.exceptions.NoPermissionError,
)
"""Errors of refused credentials: WRONGPASS, NOAUTH, NOPERM."""


async def ping(url: SecretStr, settings: StoreSettings, timeout: float) -> str | None:
    """Return the problem of a Redis; None if it answers PING.

    Args:
        url: URL of the server, or of its sentinels.
        settings: Settings of the client; `timeout` replaces theirs.
        timeout: Seconds a single call may take; the caller bounds the whole.
    """
    limits = settings.model_copy(update={"connect_timeout": timeout})
    client = connect_async(url, limits, timeout=timeout, max_connections=2)
    try:
        await client.ping()
    except REFUSALS:
        return "refuses the credentials: check user and password in its URL"
    except redis.exceptions.ResponseError as error:
        return f"answers PING with an error: {error}"
    except ERRORS as error:
        return _unreachable(str(error))
    finally:
        await close(client)
    return None


def _unreachable(reason: str) -> str:
    return f"is not reachable: {reason}" if "connecting to" in reason else f"does not answer PING: {reason}"


async def close(client: "redis.asyncio.Redis") -> None:
    """Close its connections, including those to sentinels."""
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    for opened in [client, *getattr(manager, "sentinels", ())]:
        with contextlib.suppress(*ERRORS):
            await opened.aclose()
