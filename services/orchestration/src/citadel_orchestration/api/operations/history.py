"""What the monitoring worker has recorded: health checks and system metrics, from the results store."""

import asyncio
import time
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from citadel_common.errors import StoreUnavailable
from citadel_common.history import Kind, key_of, parse
from citadel_common.stores.redis import ERRORS
from citadel_contracts.api import ComponentHealth

if TYPE_CHECKING:
    from redis.asyncio import Redis

TOO_OLD = 900.0
"""Seconds after which a health check says nothing of now: three of its usual intervals."""
ASKED_HERE = frozenset({"broker", "results", "cache", "postgres"})
"""What the API asks itself, and knows better."""


class History:
    """Entries by time.

    Args:
        client: Client of the results store.
        timeout: Seconds it may take.
    """

    def __init__(self, client: "Redis", *, timeout: float) -> None:
        self._client = client
        self._timeout = timeout

    async def between(
        self, kind: Kind, since: datetime | None, until: datetime | None, limit: int
    ) -> list[dict[str, Any]]:
        """Entries from `since` on and before `until`, the newest first.

        Raises:
            StoreUnavailable: The results store does not answer.
        """
        newest = "inf" if until is None else f"({until.timestamp()!r}"
        oldest = "-inf" if since is None else repr(since.timestamp())
        return [entry for _, entry in await self._read(kind, newest, oldest, limit)]

    async def told(self) -> Mapping[str, ComponentHealth]:
        """What the newest health check says of dependencies that the API does not ask itself.

        None of them is required, since it was a while ago; a check that is too old says nothing, and one that cannot
        be read neither.
        """
        try:
            found = await self._read("health", "inf", "-inf", 1)
        except StoreUnavailable:
            return {}
        for at, entry in found:
            age = time.time() - at
            if age <= TOO_OLD:
                services = (entry.get("health_status") or {}).get("services") or {}
                return {name: _component(said, age) for name, said in services.items() if name not in ASKED_HERE}
        return {}

    async def _read(self, kind: Kind, newest: str, oldest: str, limit: int) -> list[tuple[float, dict[str, Any]]]:
        try:
            async with asyncio.timeout(self._timeout):
                rows: Any = await self._client.zrange(
                    key_of(kind),
                    newest,
                    oldest,
                    desc=True,
                    byscore=True,
                    offset=0,
                    num=limit,
                    withscores=True,
                )
        except ERRORS:
            raise StoreUnavailable from None
        return [(float(at), parse(member)) for member, at in rows]


def _component(said: Mapping[str, Any], age: float) -> ComponentHealth:
    when = f"checked {age:.0f} s ago"
    detail, status = said.get("detail"), said.get("status")
    return ComponentHealth(
        status="down" if status == "down" else "up",
        required=False,
        latency_ms=said.get("latency_ms"),
        detail=f"{detail} ({when})" if detail else f"{status}, {when}",
    )
