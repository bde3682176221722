"""A Citadel worker whose embeddings are made up: real queue, real results, real heartbeats.

Texts steer it: `wait on NAME` ends when the test pushes to the list NAME, `refuse` is refused, `fail ERROR` fails
the task with that error class.
"""

import asyncio
import sys
from typing import Any

import numpy as np
import redis

from citadel_common import errors
from citadel_common.embeddings import catalog
from citadel_common.embeddings.cache import EmbeddingCache
from citadel_common.embeddings.keys import KeySpace
from citadel_common.embeddings.vectors import Stored, Vector, to_base64
from citadel_common.settings.common import CommonSettings
from citadel_common.stores.redis import connect, connect_async
from citadel_common.tasks.base import TaskContext, register
from citadel_common.tasks.runtime import TaskRuntime
from citadel_common.timestamps import utc_now
from citadel_common.worker.launch import Service, run_worker
from citadel_contracts import GENERATE_EMBEDDING, WARM_EMBEDDING_CACHE, Queue
from citadel_contracts.api import ModelInfo

DIMENSIONS = 8
MODEL = ModelInfo(
    name="nomic-embed-text", identity="nomic-embed-text@1", backend="fake", dimensions=DIMENSIONS, matryoshka=True
)
STIFF = ModelInfo(name="all-minilm", identity="all-minilm@1", backend="fake", dimensions=4)
SLASHED = ModelInfo(name="BAAI/bge-small:v1", identity="BAAI/bge-small:v1@1", backend="fake", dimensions=4)


def vector_of(text: str) -> Vector:
    """Return the vector of a text."""
    seed = int.from_bytes(text.encode()[:8].ljust(8, b"\0"), "little") + len(text)
    return np.random.default_rng(seed).standard_normal(DIMENSIONS).astype("<f4")


def publish_catalog(settings: CommonSettings) -> None:
    """Publish a catalog of three models that rules out others."""

    async def publish() -> None:
        async with connect_async(settings.results, settings.stores) as client:
            await catalog.publish(client, [MODEL, STIFF, SLASHED], is_open=False)

    asyncio.run(publish())


def cache_vectors(url: str, texts: list[str]) -> None:
    """Cache the vectors of texts, as a worker would."""
    settings = CommonSettings(broker_url=url)
    space = KeySpace(identity=MODEL.identity, dimensions=None, prefix="", options=None)
    vectors = {space.key(text): Stored(vector_of(text), text.startswith("long")) for text in texts}

    async def put() -> None:
        async with connect_async(settings.cache_store, settings.stores) as client:
            await EmbeddingCache(client, settings.cache).put_many(vectors)

    asyncio.run(put())


def embed(store: "redis.Redis", payload: Any, context: TaskContext) -> dict[str, Any]:
    texts = [payload.text] if isinstance(payload.text, str) else payload.text
    vectors: list[Any] = []
    problems = []
    for index, text in enumerate(texts):
        word, _, rest = text.partition(" ")
        if text.startswith("wait on "):
            store.lpush("started", text)
            store.blpop([text.removeprefix("wait on ")], timeout=60)
        if word == "fail":
            raise getattr(errors, rest)(f"as told: {rest}")
        if word == "refuse":
            vectors.append(None)
            problems.append({"index": index, "code": "text_rejected", "message": "the backend refuses it"})
            continue
        vector = vector_of(text)
        vectors.append(to_base64(vector) if payload.encoding_format == "base64" else vector.tolist())
    store.rpush("computed", *texts)
    return {
        "success": not problems,
        "task_id": context.task_id,
        "embeddings": vectors,
        "model_used": payload.model,
        "dimensions": DIMENSIONS,
        "cache_hits": 0,
        "total_texts": len(texts),
        "cache_hit_rate": 0.0,
        "truncated": [index for index, text in enumerate(texts) if text.startswith("long")],
        "total_tokens": 3 * len(texts),
        "errors": problems,
        "processing_time_ms": 1.0,
        "timestamp": utc_now(),
    }


def warm(store: "redis.Redis", payload: Any, context: TaskContext) -> dict[str, Any]:
    context.progress({"processed": 1, "total": len(payload.texts)})
    store.lpush("started", "warming")
    store.blpop(["warm"], timeout=60)
    counts = {"warmed": len(payload.texts), "skipped": 0, "errors": 0}
    return {
        "success": True,
        "task_id": context.task_id,
        "cache_warming_results": counts,
        "models": payload.models or [],
        "processing_time_ms": 1.0,
        "timestamp": utc_now(),
    }


def main() -> None:
    settings = CommonSettings()
    store = connect(settings.results, settings.stores)
    store.connection_pool.connection_kwargs["socket_timeout"] = None

    def start(runtime: TaskRuntime) -> None:
        register(runtime.app, GENERATE_EMBEDDING, lambda payload, context: embed(store, payload, context))
        register(runtime.app, WARM_EMBEDDING_CACHE, lambda payload, context: warm(store, payload, context))
        publish_catalog(settings)

    run_worker(Queue.EMBEDDINGS, settings, Service(start=start, interrupt=lambda: sys.exit(0), close=store.close))


if __name__ == "__main__":
    main()
