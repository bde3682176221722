"""Dry runs: the plan of a workflow, with its expected cache hits."""

import asyncio
from dataclasses import dataclass
from typing import Any

from citadel_common.embeddings.cache import EmbeddingCache
from citadel_common.embeddings.catalog import Catalog
from citadel_common.embeddings.keys import KeySpace
from citadel_common.embeddings.requests import check_dimensions, find_model, prefix_of
from citadel_common.published import PublishedReader
from citadel_contracts.workflows import EmbedPart
from citadel_orchestration.definition.plan import plan
from citadel_orchestration.engine.submission import Submissions

LOOKUP_TIMEOUT = 5.0
"""Seconds that one lookup in the cache may take; the cache's own timeout is far below."""


@dataclass(frozen=True, kw_only=True)
class PlanService:
    """Plans workflows without running them; belongs to one event loop.

    Attributes:
        submissions: Checks definitions.
        cache: Vectors in Redis.
        models: The models that workers have.
        default_model: Name of the model for steps that name none.
    """

    submissions: Submissions
    cache: EmbeddingCache
    models: PublishedReader[Catalog]
    default_model: str

    async def plan(self, raw: Any) -> dict[str, Any]:
        """Return the plan of a definition; see `definition.plan`.

        Raises:
            InvalidDefinition: The definition is not valid; the error lists all problems.
        """
        loop = asyncio.get_running_loop()

        def cached(request: EmbedPart) -> int:
            return asyncio.run_coroutine_threadsafe(self._cached(request), loop).result(LOOKUP_TIMEOUT)

        return await asyncio.to_thread(lambda: plan(self.submissions.check(raw), cached=cached))

    async def _cached(self, request: EmbedPart) -> int:
        """Return how many of the texts are in the cache, without counting hits."""
        model = find_model(request.model or self.default_model, self.models.latest)
        if model is None or not request.cache_enabled:
            return 0
        space = KeySpace(
            identity=model.identity,
            dimensions=check_dimensions(request.dimensions, model),
            prefix=prefix_of(model, request.input_type),
            options=request.options or None,
        )
        found = await self.cache.peek_many(space.keys(request.texts))
        return sum(stored is not None for stored in found)
