"""Points: what is stored, what a search finds, and the ids that make a repeated upsert harmless."""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any
from uuid import UUID, uuid5

from citadel_common.errors import InvalidInput

PointId = int | str
NAMESPACE = UUID("8f6b3d0e-52a7-4c1b-9e64-6d1f0a7c2b95")
"""Of all derived ids. Ids are stored for good: it must never change."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point to store.

    Attributes:
        id: An unsigned 64-bit integer or a UUID; see `point_id`.
        vector: Its vector.
        payload: JSON stored beside it.
    """

    id: PointId
    vector: Sequence[float]
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A point that a search found.

    Attributes:
        id: Its id; UUIDs in their usual spelling.
        score: How near it is, by the collection's distance; cosine: 1 is the same direction.
        payload: What was stored beside it, or the part asked for.
    """

    id: PointId
    score: float
    payload: dict[str, Any]


def point_id(
    collection: str,
    given: PointId | None = None,
    *,
    text: str | None = None,
    vector: Sequence[float] = (),
    payload: Mapping[str, Any] | None = None,
) -> PointId:
    """The id under which a point is stored; the same for the same arguments, on every machine.

    An integer or a UUID is kept; another string is turned into a UUID, apart for each collection. Without any, the
    id follows from the payload and the text, or from the payload and the vector where there is no text.

    Raises:
        InvalidInput: The payload is not JSON.
    """
    if isinstance(given, int):
        return given
    if given is not None:
        return _as_uuid(given) or _derived(["id", collection, given])
    if text is not None:
        return _derived(["text", collection, text, dict(payload or {})])
    return _derived(["vector", collection, _digest(vector), dict(payload or {})])


def _as_uuid(text: str) -> str | None:
    try:
        return str(UUID(text))
    except ValueError:
        return None


def _derived(parts: list[Any]) -> str:
    try:
        name = json.dumps(parts, sort_keys=True, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise InvalidInput.at("payload", f"is not JSON: {error}") from None
    return str(uuid5(NAMESPACE, name))


def _digest(vector: Sequence[float]) -> str:
    return blake2b(struct.pack(f"<{len(vector)}d", *vector), digest_size=16).hexdigest()
