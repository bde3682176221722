"""The model catalog: workers publish which models their backends have, and the API checks requests against it.

The check is a convenience, not a guard: without a fresh catalog (no worker yet, store down) requests pass and the
worker decides.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson
import structlog

from citadel_common.stores.redis import ERRORS
from citadel_contracts.api import ModelInfo

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = structlog.get_logger(__name__)

KEY = "citadel:models"
FRESH = 60.0
"""Seconds for which a published catalog counts."""


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """The models of all live backends.

    Attributes:
        models: By name.
        open: Whether some backend cannot list its models, so that others may exist.
    """

    models: dict[str, ModelInfo] = field(default_factory=dict)
    open: bool = True

    def find(self, name: str) -> ModelInfo | None:
        """Return the entry of a model, with or without `:latest`."""
        return next((self.models[spelling] for spelling in spellings(name) if spelling in self.models), None)


EMPTY = Catalog()


def spellings(name: str) -> tuple[str, str, str]:
    """Return the names under which a server may list a model."""
    bare = name.removesuffix(":latest")
    return name, bare, f"{bare}:latest"


async def publish(client: "Redis", models: Iterable[ModelInfo], *, is_open: bool) -> None:
    """Replace the published catalog."""
    document = {"models": [model.model_dump() for model in models], "open": is_open}
    await client.set(KEY, orjson.dumps(document), px=int(FRESH * 1000))


class CatalogReader:
    """Reader of the published catalog; it asks the store at most every `refresh` seconds."""

    def __init__(self, client: "Redis", *, refresh: float = 2.0) -> None:
        self._client = client
        self._refresh = refresh
        self._catalog = EMPTY
        self._read_at = float("-inf")

    async def current(self) -> Catalog:
        """Return the newest catalog; EMPTY if none is published."""
        now = time.monotonic()
        if now - self._read_at >= self._refresh:
            self._read_at = now
            self._catalog = await self._load()
        return self._catalog

    async def _load(self) -> Catalog:
        try:
            document = await self._client.get(KEY)
        except ERRORS as error:
            log.warning("catalog_unavailable", error=type(error).__name__)
            return self._catalog
        if document is None:
            return EMPTY
        content = orjson.loads(document)
        models = (ModelInfo.model_validate(entry) for entry in content["models"])
        return Catalog(models={model.name: model for model in models}, open=content["open"])
