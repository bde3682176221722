"""Vector stores: Qdrant's double, the real Qdrant, and the embedded engine, with collections of the tests' own."""

import asyncio
from collections.abc import Callable
from uuid import uuid4

import httpx
import pytest

from citadel_common.settings.qdrant import QdrantSettings
from tests.integration.vectors.conftest import open_store
from tests.support import servers
from tests.support.servers import double_or_real

SERVERS = double_or_real(servers.qdrant_double, servers.qdrant_real)


class Collections:
    """Names of collections that no other test has, which are dropped at the end."""

    def __init__(self) -> None:
        self._stem = f"t{uuid4().hex[:10]}-"
        self.names: list[str] = []

    def __call__(self, name: str = "docs") -> str:
        """Return a name that ends with that word."""
        if self._stem + name not in self.names:
            self.names.append(self._stem + name)
        return self._stem + name

    def of(self, listed):
        """Return those of a listing that are this test's, by their words."""
        return {name.removeprefix(self._stem): value for name, value in listed.items() if name.startswith(self._stem)}


@pytest.fixture(scope="module", params=[*SERVERS, pytest.param(None, id="embedded")])
def store_server(request):
    """A server, or None for the embedded engine; modules for servers alone replace it by `qdrant_server`."""
    if request.param is None:
        yield None
        return
    with request.param() as server:
        yield server


@pytest.fixture
def http(store_server):
    """Client of the server, for what Citadel itself never asks."""
    with httpx.Client(base_url=store_server.url, headers={"api-key": store_server.api_key}, timeout=60) as client:
        yield client


@pytest.fixture
def settings(store_server, tmp_path):
    """Settings of a store that is not waited for."""
    if store_server is None:
        return QdrantSettings(path=tmp_path / "qdrant")
    return QdrantSettings(url=store_server.url, api_key=store_server.api_key, patience=0)


@pytest.fixture
def own(settings):
    """Names of collections, dropped at the end of the test."""
    names = Collections()
    yield names
    if settings.url is not None:
        key = settings.api_key.get_secret_value()
        for name in names.names:
            httpx.delete(f"{settings.url}/collections/{name}", headers={"api-key": key}, timeout=60)


@pytest.fixture
def docs(own):
    """The name of a collection of the test's own."""
    return own("docs")


@pytest.fixture
def with_store(settings) -> Callable:
    """Runs an async function with a store of those settings; several times they find the same data."""

    async def run(work, chosen):
        async with open_store(chosen) as store:
            return await work(store)

    return lambda work, chosen=settings: asyncio.run(run(work, chosen))
