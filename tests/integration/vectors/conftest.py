"""Vector stores: a server, spoken to by HTTP, and the embedded engine."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from citadel_common.settings.qdrant import QdrantSettings
from citadel_orchestration.vectors.store import VectorStore
from tests.doubles.process import QdrantProcess


@asynccontextmanager
async def open_store(settings: QdrantSettings) -> AsyncIterator[VectorStore]:
    """A store, closed at the end."""
    store = VectorStore(settings)
    try:
        yield store
    finally:
        await store.aclose()


@pytest.fixture(scope="session")
def qdrant_server():
    """A running double; tests take `qdrant`, which is empty."""
    with QdrantProcess() as process:
        yield process


@pytest.fixture
def qdrant(qdrant_server):
    """The double, healthy and without collections."""
    qdrant_server.reset()
    return qdrant_server


@pytest.fixture(params=["server", "embedded"])
def settings(request, tmp_path):
    """Of an empty store of each kind."""
    if request.param == "embedded":
        return QdrantSettings(path=tmp_path / "qdrant")
    return QdrantSettings(url=request.getfixturevalue("qdrant").url)


@pytest.fixture
def with_store(settings) -> Callable:
    """Runs an async function with a store of those settings; several times they find the same data."""

    async def run(work, chosen):
        async with open_store(chosen) as store:
            return await work(store)

    return lambda work, chosen=settings: asyncio.run(run(work, chosen))
