"""The catalog against which definitions are checked: models, collections and LLM endpoints."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from citadel_common.embeddings import catalog as model_catalog
from citadel_common.published import PublishedReader
from citadel_orchestration.vectors import catalogue as collection_catalogue
from citadel_orchestration.vectors.catalogue import Collections

if TYPE_CHECKING:
    from redis.asyncio import Redis


@dataclass(frozen=True, kw_only=True)
class PublishedCatalog:
    """Published models and collections, read from `start` to `stop`, and the configured endpoints.

    Attributes:
        models: The models of live embeddings workers.
        collections: The collections of the vector store.
        problem_of_endpoint: Returns why an endpoint cannot be used.
        default_model: Name of the model of texts that name none.
    """

    models: PublishedReader[model_catalog.Catalog]
    collections: PublishedReader[Collections]
    problem_of_endpoint: Callable[[str], str | None]
    default_model: str

    @classmethod
    def of(cls, client: "Redis", *, problem_of_endpoint: Callable[[str], str | None], default_model: str) -> Self:
        """Return the catalogue that is published in a Redis."""
        return cls(
            models=model_catalog.reader(client),
            collections=collection_catalogue.reader(client),
            problem_of_endpoint=problem_of_endpoint,
            default_model=default_model,
        )

    async def start(self) -> None:
        """Begin to read; see `PublishedReader.start`."""
        await asyncio.gather(self.models.start(), self.collections.start())

    async def stop(self) -> None:
        """Stop reading."""
        await asyncio.gather(self.models.stop(), self.collections.stop())

    def endpoint_problem(self, name: str) -> str | None:
        """Return why an LLM endpoint cannot be used; None if it can."""
        return self.problem_of_endpoint(name)

    def model_dimensions(self, model: str | None) -> int | None:
        """Return the length of a model's vectors; None if it is not known."""
        found = self.models.latest.find(model or self.default_model)
        return None if found is None else found.dimensions

    def collection_vectors(self, collection: str) -> Mapping[str, int] | None:
        """Return the lengths of the vectors in a collection by name; None if it is not known."""
        return self.collections.latest.vectors.get(collection)
