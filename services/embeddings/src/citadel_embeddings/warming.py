"""`warm_embedding_cache`: embeds the texts that the cache lacks, in chunks."""

import asyncio
from typing import TYPE_CHECKING

from citadel_common.errors import BackendUnavailable
from citadel_common.tasks.failure_policy import HandBack
from citadel_contracts import Lane
from citadel_contracts.embeddings import WarmCounts, WarmEmbeddingCache
from citadel_embeddings.engine import EmbeddingEngine, EmbedRequest
from citadel_embeddings.results import task_error

if TYPE_CHECKING:
    from citadel_common.tasks.base import TaskContext

CHUNK = 256
"""Texts of one request to the engine."""


async def warm(
    engine: EmbeddingEngine, payload: WarmEmbeddingCache, context: "TaskContext"
) -> tuple[list[str], WarmCounts]:
    """Embed the texts with each model; return the models, and counts of (text, model) pairs.

    Raises:
        UnknownModel: No backend has a named model.
        BackendUnavailable: No backend lists its models.
        HandBack: The worker is stopping; what was computed is cached.
    """
    models = payload.models if payload.models is not None else await _known(engine)
    for model in models:
        await engine.registry.resolve(model, context.deadline)
    counts: WarmCounts = {"warmed": 0, "skipped": 0, "errors": 0}
    for model in models:
        for start in range(0, len(payload.texts), CHUNK):
            if context.stopping():
                raise HandBack
            await _chunk(engine, payload.texts[start : start + CHUNK], model, counts, context)
            await asyncio.to_thread(context.progress, _progress(counts, len(payload.texts) * len(models)))
    return models, counts


async def _known(engine: EmbeddingEngine) -> list[str]:
    if not engine.registry.known:
        await engine.registry.refresh()
    models = [model.info.name for model in engine.registry.known]
    if not models:
        raise BackendUnavailable("no backend lists an embedding model; name one in `models`")
    return models


async def _chunk(
    engine: EmbeddingEngine, texts: list[str], model: str, counts: WarmCounts, context: "TaskContext"
) -> None:
    response = await engine.embed(EmbedRequest(text=texts, model=model), context.deadline, Lane.BATCH)
    error = task_error(response, last_try=context.last_try)
    if error is not None and error.retryable:
        raise error
    counts["skipped"] += response.cache_hits
    counts["errors"] += len(response.errors)
    counts["warmed"] += len(texts) - response.cache_hits - len(response.errors)


def _progress(counts: WarmCounts, total: int) -> dict[str, float]:
    done = sum((counts["warmed"], counts["skipped"], counts["errors"]))
    return {"processed": done, "total": total, "percent": done / total * 100}
