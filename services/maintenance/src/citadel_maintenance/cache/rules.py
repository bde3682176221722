"""What each cache entry is, by its key and time to live: one to keep, or one of a kind that goes."""

from dataclasses import dataclass

from citadel_common.embeddings.keys import CLAIM_SUFFIX, SCHEMA, parse_key
from citadel_maintenance.cache.models import LiveModels

REMOVED_MODEL = "removed_models"
OLD_SCHEMA = "old_schema"
NO_TTL = "without_ttl"
OVER_BUDGET = "over_budget"
_NEVER_EXPIRES = -1
_NOT_THERE = -2


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """What an entry is.

    Attributes:
        group: Entries of about the same size: model identity and dimensions; None where it is no vector of ours.
        kind: Why it goes; None for one that stays.
    """

    group: str | None
    kind: str | None


NOT_OURS = Ruling(group=None, kind=None)


def rule(key: str, ttl: int, models: LiveModels) -> Ruling:
    """Judges an entry.

    Args:
        key: Its key.
        ttl: Its time to live as Redis tells it: milliseconds, -1 for never, -2 for a key that is gone.
        models: What is alive.
    """
    parts = parse_key(key)
    if parts is None or ttl == _NOT_THERE:
        return NOT_OURS
    if key.endswith(CLAIM_SUFFIX):
        return Ruling(group=None, kind=NO_TTL if ttl == _NEVER_EXPIRES else None)
    group = f"{parts.identity} {parts.dimensions}"
    if _is_older(parts.schema):
        return Ruling(group=group, kind=OLD_SCHEMA)
    if parts.schema != SCHEMA:
        return NOT_OURS
    if ttl == _NEVER_EXPIRES:
        return Ruling(group=group, kind=NO_TTL)
    return Ruling(group=group, kind=REMOVED_MODEL if models.is_gone(parts.identity) else None)


def _is_older(schema: str) -> bool:
    """A newer version's entries are its own affair: both are there during a rolling update."""
    return schema.isascii() and schema.isdigit() and int(schema) < int(SCHEMA)
