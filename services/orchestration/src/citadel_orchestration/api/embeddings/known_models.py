"""The model catalogue as this process knows it: read in the background, so that no request waits for it."""

import asyncio
import contextlib

from citadel_common.embeddings.catalog import EMPTY, Catalog, CatalogReader

INTERVAL = 2.0
"""Seconds between reads."""


class KnownModels:
    """Keeps the catalogue fresh; a store that is down leaves the last one in place."""

    def __init__(self, reader: CatalogReader) -> None:
        self._reader = reader
        self._task: asyncio.Task[None] | None = None
        self.catalog: Catalog = EMPTY

    async def start(self) -> None:
        """Begins to read; returns after the first reading, or without it if the store takes long."""
        first = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._keep_reading(first))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(INTERVAL):
                await first.wait()

    async def stop(self) -> None:
        """Stop reading."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_reading(self, first: asyncio.Event) -> None:
        while True:
            self.catalog = await self._reader.current()
            first.set()
            await asyncio.sleep(INTERVAL)
