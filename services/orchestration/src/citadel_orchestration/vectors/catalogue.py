"""The collection catalogue: workers publish what collections there are, the API checks definitions against it.

It is a convenience, not a guard: with no fresh catalogue definitions pass and the step decides.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from citadel_common.errors import CitadelError
from citadel_common.published import PublishedReader
from citadel_common.stores.redis import ERRORS
from citadel_common.timestamps import utc_now
from citadel_orchestration.vectors.store import VectorStore

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = structlog.get_logger(__name__)

KEY = "citadel:collections"
INTERVAL = 60.0
"""Seconds between two publications, where nothing changes in between."""
FRESH = 3 * INTERVAL
"""Seconds a published catalogue counts."""

_FAILURES: tuple[type[Exception], ...] = (CitadelError, *ERRORS)


@dataclass(frozen=True, kw_only=True)
class Collections:
    """The collections of the vector store.

    Attributes:
        dimensions: Length of the vectors by collection; None where there are several lengths.
        published_at: When, as ISO 8601; None for never.
    """

    dimensions: Mapping[str, int | None] = field(default_factory=dict)
    published_at: str | None = None


EMPTY = Collections()


class CollectionPublisher:
    """Publishes a store's collections whenever it has created one, and every `interval` seconds."""

    def __init__(self, store: VectorStore, client: "Redis", *, interval: float = INTERVAL) -> None:
        self._store = store
        self._client = client
        self._interval = interval

    async def publish(self) -> None:
        """Replaces the published catalogue; a store that is down leaves it as it is."""
        try:
            document = {"published_at": utc_now(), "collections": await self._store.collections()}
            await self._client.set(KEY, orjson.dumps(document), px=int(FRESH * 1000))
        except _FAILURES as error:
            log.warning("collections_not_published", error=type(error).__name__)

    async def run(self) -> None:
        """Publishes until cancelled."""
        while True:
            self._store.changed.clear()
            await self.publish()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._store.changed.wait()


def reader(client: "Redis") -> PublishedReader[Collections]:
    """Return a reader of the published catalogue."""
    return PublishedReader(client, KEY, _parse, EMPTY)


def _parse(document: dict[str, Any]) -> Collections:
    return Collections(dimensions=document["collections"], published_at=document["published_at"])
