"""Plans: what a workflow would do, cache hits included, without running it."""

import asyncio
from dataclasses import dataclass
from typing import Any

from citadel_common.embeddings.cache import EmbeddingCache
from citadel_common.embeddings.keys import KeySpace
from citadel_common.embeddings.requests import check_dimensions, find_model, prefix_of
from citadel_contracts.workflows import EmbedPart
from citadel_orchestration.api.embeddings.known_models import KnownModels
from citadel_orchestration.definition.plan import plan
from citadel_orchestration.engine.submission import Submissions

PATIENCE = 5.0
"""Seconds one look into the cache may take; the cache's own limit is far below."""


@dataclass(frozen=True, kw_only=True)
class Plans:
    """What the plan route works with; belongs to one event loop."""

    submissions: Submissions
    cache: EmbeddingCache
    models: KnownModels
    default_model: str

    async def plan(self, raw: Any) -> dict[str, Any]:
        """The plan of a definition; see `definition.plan`.

        Raises:
            InvalidDefinition: With everything that is wrong.
        """
        loop = asyncio.get_running_loop()

        def cached(wanted: EmbedPart) -> int:
            return asyncio.run_coroutine_threadsafe(self._cached(wanted), loop).result(PATIENCE)

        return await asyncio.to_thread(lambda: plan(self.submissions.check(raw), cached=cached))

    async def _cached(self, wanted: EmbedPart) -> int:
        """How many of the texts have their vectors in the cache; looking counts as no hit."""
        model = find_model(wanted.model or self.default_model, self.models.catalog)
        if model is None or not wanted.cache_enabled:
            return 0
        space = KeySpace(
            identity=model.identity,
            dimensions=check_dimensions(wanted.dimensions, model),
            prefix=prefix_of(model, wanted.input_type),
            options=wanted.options or None,
        )
        found = await self.cache.peek_many(space.keys(wanted.texts))
        return sum(stored is not None for stored in found)
