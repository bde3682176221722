"""Classification of cache entries by key and time to live: which stay, and why others go."""

from dataclasses import dataclass

from citadel_common.embeddings.keys import CLAIM_SUFFIX, SCHEMA, parse_key
from citadel_maintenance.cache.models import LiveModels

REMOVED_MODEL = "removed_models"
OLD_SCHEMA = "old_schema"
NO_TTL = "without_ttl"
OVER_BUDGET = "over_budget"
_NEVER_EXPIRES = -1
_MISSING = -2


@dataclass(frozen=True, kw_only=True)
class Classification:
    """The class of a cache key for the clean-up.

    Attributes:
        group: Name of the entries of about the same size: model identity and dimensions. None for what is not a vector
            of this cache.
        kind: Kind under which the entry is removed and counted; None for one that stays.
    """

    group: str | None
    kind: str | None


FOREIGN = Classification(group=None, kind=None)


def classify(key: str, ttl: int, models: LiveModels) -> Classification:
    """Classify an entry.

    Args:
        key: Its key.
        ttl: Its time to live as PTTL returns it: milliseconds, -1 if it never expires, -2 if the key is gone.
        models: The models that are alive.
    """
    parts = parse_key(key)
    if parts is None or ttl == _MISSING:
        return FOREIGN
    if key.endswith(CLAIM_SUFFIX):
        return Classification(group=None, kind=NO_TTL if ttl == _NEVER_EXPIRES else None)
    group = f"{parts.identity} {parts.dimensions}"
    if _is_older(parts.schema):
        return Classification(group=group, kind=OLD_SCHEMA)
    if parts.schema != SCHEMA:
        return FOREIGN  # a newer version's entry: both versions run during a rolling update
    if ttl == _NEVER_EXPIRES:
        return Classification(group=group, kind=NO_TTL)
    return Classification(group=group, kind=REMOVED_MODEL if models.is_gone(parts.identity) else None)


def _is_older(schema: str) -> bool:
    return schema.isascii() and schema.isdigit() and int(schema) < int(SCHEMA)
