"""The collection catalogue: workers publish which collections there are, and definitions are checked against it.

Checks without a fresh catalogue pass; then the step itself fails if its vectors do not fit.
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
"""Seconds between two publications if nothing changes in between."""
FRESH = 3 * INTERVAL
"""Seconds until a published catalogue expires."""

_FAILURES: tuple[type[Exception], ...] = (CitadelError, *ERRORS)


@dataclass(frozen=True, kw_only=True)
class Collections:
    """The collections of the vector store.

    Attributes:
        vectors: For each collection the lengths of its vectors by name; unnamed ones have the name "".
        published_at: Time of publication, as ISO 8601; None if nothing is published.
    """

    vectors: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    published_at: str | None = None


EMPTY = Collections()


class CollectionPublisher:
    """Publisher of a store's collections: after the store has created one, and every `interval` seconds."""

    def __init__(self, store: VectorStore, client: "Redis", *, interval: float = INTERVAL) -> None:
        self._store = store
        self._client = client
        self._interval = interval

    async def publish(self) -> None:
        """Replace the published catalogue; leave it as it is while the store does not answer."""
        try:
            document = _document(await self._store.collections())
            await self._client.set(KEY, orjson.dumps(document), px=int(FRESH * 1000))
        except _FAILURES as error:
            log.warning("collections_not_published", error=type(error).__name__)

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            self._store.changed.clear()
            await self.publish()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._store.changed.wait()


def reader(client: "Redis") -> PublishedReader[Collections]:
    """Return a reader of the published catalogue."""
    return PublishedReader(client, KEY, _parse, EMPTY)


def _document(vectors: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    lengths = {name: set(named.values()) for name, named in vectors.items()}
    # read by processes of older versions, which know one length per collection
    single = {name: min(found) if len(found) == 1 else None for name, found in lengths.items()}
    return {"published_at": utc_now(), "collections": single, "vectors": vectors}


def _parse(document: dict[str, Any]) -> Collections:
    return Collections(vectors=document.get("vectors", {}), published_at=document["published_at"])
