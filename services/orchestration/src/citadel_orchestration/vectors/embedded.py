"""Connection to Qdrant's embedded engine, whose directory one process at a time may open."""

import asyncio
import fcntl
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient

from citadel_common.errors import VectorStoreUnavailable
from citadel_common.outages import Outage
from citadel_orchestration.vectors.connection import in_collection
from citadel_orchestration.vectors.failures import from_embedded, from_opening, held

LOCK = ".lock"
"""Lock file of the engine; a directory without it was never opened."""


class EmbeddedConnection:
    """The engine in a thread of its own, since it is synchronous and slow with large collections."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._client: QdrantClient | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="qdrant")

    async def call(self, method: str, *, collection: str = "", timeout: float, **arguments: Any) -> Any:
        """See `Connection`; a call that has begun is not stopped by a timeout.

        A directory that another process has open is an outage: a worker that ends still holds it for a while.
        """
        work = partial(self._run, method, collection, arguments)
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except TimeoutError:
            raise VectorStoreUnavailable(
                f"the embedded vector store did not finish within {timeout:.3g} s; a server is faster"
            ) from None

    async def ready(self, *, timeout: float) -> None:
        """Open the directory."""
        try:
            await self.call("get_collections", timeout=timeout)
        except Outage as outage:
            raise outage.error from outage

    async def aclose(self) -> None:
        """Close the directory after the call under way."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def _run(self, method: str, collection: str, arguments: dict[str, Any]) -> Any:
        client = self._client or self._open()
        try:
            return getattr(client, method)(**in_collection(collection, arguments))
        except (ValueError, TypeError, OSError, RuntimeError) as error:
            # RuntimeError includes what the engine raises for filters that only the server has
            raise from_embedded(error, collection) from error

    def _open(self) -> QdrantClient:
        _require_free(self._path / LOCK)
        try:
            self._client = QdrantClient(path=str(self._path))
        except (RuntimeError, OSError, ValueError) as error:
            raise from_opening(error, self._path) from error
        return self._client

    def _close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def _require_free(lock: Path) -> None:
    """Check that no other process has the directory open.

    The engine itself checks only after it has read everything, and then leaves its files open.

    Raises:
        Outage: Another process has the directory open.
    """
    try:
        with lock.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise held(lock.parent) from None
    except OSError:
        return  # not there yet, or the engine's to complain about
