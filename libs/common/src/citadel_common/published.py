"""Documents that workers publish in Redis for other processes: what models and what collections there are.

Readers take them as hints: where none is published, requests pass and the worker decides.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import orjson
import structlog

from citadel_common.stores.redis import ERRORS

if TYPE_CHECKING:
    from redis.asyncio import Redis

T = TypeVar("T")
log = structlog.get_logger(__name__)
INTERVAL = 2.0
"""Seconds between reads."""


class PublishedReader(Generic[T]):
    """Keeps the newest document under a key; reads it in the background, so that no caller waits for Redis.

    Args:
        client: Belongs to the event loop that reads.
        key: Where the document, in JSON, is published.
        parse: Makes the value of the document.
        empty: The value where nothing is published.

    Attributes:
        latest: The newest value; may be read in any thread.
    """

    def __init__(self, client: "Redis", key: str, parse: Callable[[Any], T], empty: T) -> None:
        self._client = client
        self._key = key
        self._parse = parse
        self._empty = empty
        self._task: asyncio.Task[None] | None = None
        self.latest = empty

    async def refresh(self) -> T:
        """Read the document once and return its value; while Redis does not answer, the last value stays."""
        try:
            document = await self._client.get(self._key)
        except ERRORS as error:
            log.warning("published_unavailable", key=self._key, error=type(error).__name__)
            return self.latest
        self.latest = self._empty if document is None else self._parse(orjson.loads(document))
        return self.latest

    async def start(self) -> None:
        """Begin to read; return after the first reading, or without it if Redis takes long."""
        first = asyncio.Event()
        self._task = asyncio.create_task(self._keep_fresh(first))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(INTERVAL):
                await first.wait()

    async def stop(self) -> None:
        """Stop reading."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_fresh(self, first: asyncio.Event) -> None:
        while True:
            await self.refresh()
            first.set()
            await asyncio.sleep(INTERVAL)
