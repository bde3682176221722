"""What the other services have published: models and collections, for the checks of definitions."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from citadel_common.embeddings import catalog
from citadel_common.embeddings.catalog import Catalog, CatalogReader
from citadel_orchestration.vectors import catalogue
from citadel_orchestration.vectors.catalogue import CollectionReader, Collections

if TYPE_CHECKING:
    from redis.asyncio import Redis

INTERVAL = 5.0
"""Seconds between looks."""


class Knowledge:
    """The newest of it, kept fresh by `run`; reading is thread-safe."""

    def __init__(self, client: "Redis", *, endpoint_problem: Callable[[str], str | None], default_model: str) -> None:
        self._models_reader = CatalogReader(client, refresh=0.0)
        self._collections_reader = CollectionReader(client, refresh=0.0)
        self._endpoint_problem = endpoint_problem
        self._default_model = default_model
        self._models: Catalog = catalog.EMPTY
        self._collections: Collections = catalogue.EMPTY

    async def refresh(self) -> None:
        """Looks once."""
        self._models = await self._models_reader.current()
        self._collections = await self._collections_reader.current()

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(INTERVAL)

    def endpoint_problem(self, name: str) -> str | None:
        """Why an LLM endpoint cannot be used."""
        return self._endpoint_problem(name)

    def model_dimensions(self, model: str | None) -> int | None:
        """Length of a model's vectors."""
        found = self._models.find(model or self._default_model)
        return None if found is None else found.dimensions

    def collection_dimensions(self, collection: str) -> int | None:
        """Length of the vectors in a collection."""
        return self._collections.dimensions.get(collection)
