"""The model catalog: workers publish which models their backends have, and the API checks requests against it.

The check is a convenience, not a guard: without a fresh catalog (no worker yet, store down) requests pass and the
worker decides.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from citadel_common.published import PublishedReader
from citadel_contracts.api import ModelInfo

if TYPE_CHECKING:
    from redis.asyncio import Redis

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


def reader(client: "Redis") -> PublishedReader[Catalog]:
    """Return a reader of the published catalogue."""
    return PublishedReader(client, KEY, _parse, EMPTY)


def _parse(document: dict[str, Any]) -> Catalog:
    models = (ModelInfo.model_validate(entry) for entry in document["models"])
    return Catalog(models={model.name: model for model in models}, open=document["open"])
