"""The maintenance worker as a process, and data for it to clean up."""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson
import redis

from citadel_common.embeddings.catalog import KEY as CATALOG
from citadel_common.embeddings.keys import KeySpace
from citadel_contracts.api import ModelInfo
from tests.support.worker import ServiceProcess

# No pauses and short times: periods of hours in production are over in moments here.
FAST = {
    "MAINTENANCE__DUTY": "1",
    "MAINTENANCE__WORKER_GRACE": "0",
    "WORKER__HEARTBEAT_INTERVAL": "0.2",
    "WORKER__DEAD_AFTER": "1.5",
    "WORKER__STOP_GRACE": "5",
}
VECTOR = b"\x00" * 3073
DAY = 24 * 3600.0


class MaintenanceProcess(ServiceProcess):
    """`python -m citadel_maintenance`; ready when the constructor returns."""

    def __init__(self, redis_url: str, dsn: str, others: Mapping[str, Any] | None = None, **settings: Any) -> None:
        stores = {"BROKER_URL": redis_url, "POSTGRES_DSN": dsn}
        super().__init__("citadel_maintenance", stores | FAST | dict(others or {}) | settings)


def cached(
    store: "redis.Redis", identity: str, number: int, *, ttl: int | None = 3600, value: bytes = VECTOR, start: int = 0
) -> list[str]:
    """Fill the cache with vectors of that many texts, numbered from `start`; return their keys."""
    space = KeySpace(identity=identity, dimensions=None, prefix="", options=None)
    keys = space.keys([f"text {n}" for n in range(start, start + number)])
    pipe = store.pipeline(transaction=False)
    for key in keys:
        pipe.set(key, value, ex=ttl)
    pipe.execute()
    return keys


def alive(store: "redis.Redis", *identities: str, is_open: bool = False) -> None:
    """Publish a catalogue with these models, as an embeddings worker does."""
    models = [_info(identity).model_dump() for identity in identities]
    store.set(CATALOG, orjson.dumps({"models": models, "open": is_open}))


def there(store: "redis.Redis", keys: Iterable[str]) -> int:
    """Return how many of the keys exist."""
    return int(store.exists(*keys))


def _info(identity: str) -> ModelInfo:
    return ModelInfo(
        name=identity.rpartition("@")[0],
        identity=identity,
        backend="main",
        dimensions=768,
        max_tokens=2048,
        matryoshka=False,
        accepts_empty=False,
        query_prefix="",
        document_prefix="",
    )
