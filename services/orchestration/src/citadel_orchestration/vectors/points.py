"""Points to store and hits of searches; ids that make a repeated upsert harmless."""

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
"""Namespace of derived ids. It must never change: the ids are stored for good."""


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
        id: Id; UUIDs are in canonical form.
        score: How near it is by the metric; for cosine, 1 is the same direction.
        metric: The vectors' metric. By `cosine` and `dot` a greater score is nearer, by `euclid` and `manhattan` a
            smaller one.
        payload: JSON stored beside the vector, or the part asked for.
    """

    id: PointId
    score: float
    metric: str
    payload: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """Return the hit as it is in outputs; the payload, which may be nested deeply, is the same object."""
        return {"id": self.id, "score": self.score, "metric": self.metric, "payload": self.payload}


def point_id(
    collection: str,
    given: PointId | None = None,
    *,
    text: str | None = None,
    vector: Sequence[float] = (),
    payload: Mapping[str, Any] | None = None,
) -> PointId:
    """Return the id under which a point is stored; the same arguments give the same id on every machine.

    An integer or a UUID is kept. Another string is turned into a UUID that depends on the collection. A point without
    an id gets one from its payload and its text, or from its payload and its vector if it has no text.

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
