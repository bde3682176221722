"""The naive form of the embedding worker, as it is first written down: what Citadel is measured against.

One text after another; a new HTTP client per text, a new Redis connection per cache call, an event loop for
each of them; JSON in the cache; four prefork processes; events on. Only what keeps it from running at all is
repaired: tasks are routed by their registered names.

Run as `celery --app tests.bench.naive worker`. NAIVE_REDIS and NAIVE_OLLAMA say where Redis and the backend are.
"""

import asyncio
import hashlib
import json
import os
import time
from datetime import datetime
from typing import Any

import httpx
import redis.asyncio as aioredis
from celery import Celery

REDIS = os.environ.get("NAIVE_REDIS", "redis://127.0.0.1:6379/0")
OLLAMA = os.environ.get("NAIVE_OLLAMA", "http://127.0.0.1:11434")
QUEUE = "naive_embeddings"
TASK = "naive.generate_embedding"

app = Celery("citadel_orchestration", broker=REDIS, backend=REDIS)
app.conf.update(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    task_track_started=True,
    task_time_limit=1800,
    task_soft_time_limit=1500,
    worker_concurrency=4,
    worker_prefetch_multiplier=1,
    result_expires=3600,
    result_backend_transport_options={"retry_policy": {"timeout": 5.0}},
    task_routes={TASK: {"queue": QUEUE}},
    worker_send_task_events=True,
    task_send_sent_event=True,
    worker_log_color=False,
    timezone="UTC",
    task_reject_on_worker_lost=True,
    task_acks_late=True,
    worker_disable_rate_limits=True,
)


class EmbeddingCacheManager:
    """Vectors as JSON."""

    async def get_embedding(self, text: str, model: str, options: dict[str, Any] | None = None) -> list[float] | None:
        """Return the cached vector."""
        client = aioredis.from_url(REDIS)
        try:
            value = await client.get(self._key(text, model, options))
        finally:
            await client.aclose()
        return json.loads(value) if value else None

    async def store_embedding(
        self, text: str, model: str, embedding: list[float], options: dict[str, Any] | None = None
    ) -> None:
        """Cache a vector for a day."""
        client = aioredis.from_url(REDIS)
        try:
            await client.set(self._key(text, model, options), json.dumps(embedding), ex=86400)
        finally:
            await client.aclose()

    def _key(self, text: str, model: str, options: dict[str, Any] | None) -> str:
        content = f"{model}:{text}:{json.dumps(options or {}, sort_keys=True)}"
        return "naive:embedding:" + hashlib.sha256(content.encode()).hexdigest()


class OllamaEmbeddingClient:
    """One text per request."""

    def __init__(self, model_name: str) -> None:
        self.model_name = model_name

    async def generate_embedding(self, text: str, options: dict[str, Any] | None = None) -> list[float]:
        """Return the vector of a text."""
        async with httpx.AsyncClient(timeout=30.0) as client:
            body = {"model": self.model_name, "input": text, "options": options or {}}
            response = await client.post(f"{OLLAMA}/api/embed", json=body)
            response.raise_for_status()
            vectors: list[list[float]] = response.json()["embeddings"]
            return vectors[0]


cache_manager = EmbeddingCacheManager()


@app.task(bind=True, name=TASK)  # type: ignore[untyped-decorator]  # celery publishes no types
def generate_embedding(
    self: Any,
    text: str | list[str],
    model: str = "nomic-embed-text",
    options: dict[str, Any] | None = None,
    cache_enabled: bool = True,
) -> Any:
    """Embed one text or a list."""
    started = time.time()
    try:
        texts = [text] if isinstance(text, str) else text
        results = []
        cache_hits = 0
        for single_text in texts:
            if cache_enabled:
                cached = asyncio.run(cache_manager.get_embedding(single_text, model, options))
                if cached:
                    results.append(cached)
                    cache_hits += 1
                    continue
            client = OllamaEmbeddingClient(model_name=model)
            embedding = asyncio.run(client.generate_embedding(single_text, options))
            if cache_enabled:
                asyncio.run(cache_manager.store_embedding(single_text, model, embedding, options))
            results.append(embedding)
        return {
            "success": True,
            "task_id": self.request.id,
            "embeddings": results,
            "model_used": model,
            "cache_hits": cache_hits,
            "total_texts": len(texts),
            "cache_hit_rate": cache_hits / len(texts),
            "processing_time_ms": (time.time() - started) * 1000,
            "timestamp": datetime.utcnow().isoformat(),  # noqa: DTZ003  (as it was)
        }
    except Exception as exc:  # noqa: BLE001  (as it was)
        self.retry(countdown=60, max_retries=3, exc=exc)
