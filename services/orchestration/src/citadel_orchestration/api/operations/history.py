"""Health checks and system metrics that the monitoring worker has recorded in the results store."""

import asyncio
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
"""Seconds after which a health check no longer counts: three of its usual intervals."""


class HistoryReader:
    """Reads entries by time.

    Args:
        client: Client of the results store.
        timeout: Seconds that the store may take.
    """

    def __init__(self, client: "Redis", *, timeout: float) -> None:
        self._client = client
        self._timeout = timeout

    async def between(
        self, kind: Kind, since: datetime | None, until: datetime | None, limit: int
    ) -> list[dict[str, Any]]:
        """Return entries from `since` on and before `until`, newest first.

        Raises:
            StoreUnavailable: The results store does not answer.
        """
        newest = "inf" if until is None else f"({until.timestamp()!r}"
        oldest = "-inf" if since is None else repr(since.timestamp())
        return [entry for _, entry in await self._read(kind, newest, oldest, limit)]

    async def health(self) -> Mapping[str, ComponentHealth]:
        """Return what the newest health check found; nothing if it is too old or cannot be read.

        No component is required, since the check was made a while ago.
        """
        try:
            newest = await self._read("health", "inf", "-inf", 1)
            now = await self._now()
        except StoreUnavailable:
            return {}
        for at, entry in newest:
            age = now - at
            if age <= TOO_OLD:
                services = (entry.get("health_status") or {}).get("services") or {}
                return {name: _component(found, age) for name, found in services.items()}
        return {}

    async def _now(self) -> float:
        """Return the store's time, by which the entries are recorded."""
        try:
            async with asyncio.timeout(self._timeout):
                asked: Any = self._client.time()
                seconds, microseconds = await asked
        except ERRORS:
            raise StoreUnavailable from None
        return float(seconds + microseconds / 1e6)

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


def _component(found: Mapping[str, Any], age: float) -> ComponentHealth:
    when = f"checked {age:.0f} s ago"
    detail, status = found.get("detail"), found.get("status")
    return ComponentHealth(
        status="down" if status == "down" else "up",
        required=False,
        latency_ms=found.get("latency_ms"),
        detail=f"{detail} ({when})" if detail else f"{status}, {when}",
    )
