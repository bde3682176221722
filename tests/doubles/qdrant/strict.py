"""Strict mode of Qdrant's collections: limits of searches, filters and writes, in the server's words."""

import time
from collections.abc import Mapping
from typing import Any

from tests.doubles.base.refusals import Refusal, RefusalError, refuse
from tests.doubles.qdrant.filters import conditions

Json = Mapping[str, Any]
DEFAULT_LIMIT = 10
MINUTE_S = 60.0
TYPES = {bool: "bool", int: "integer", float: "float", str: "keyword"}


class StrictMode:
    """The limits of one collection.

    Args:
        config: Its `strict_mode_config`; without `enabled` nothing is limited.
    """

    def __init__(self, config: Json | None) -> None:
        self._limits = dict(config or {}) if (config or {}).get("enabled") else {}
        self._reads = float(self._limits.get("read_rate_limit") or 0)
        self._read_at = time.monotonic()

    def check_query(self, body: Json, indexed: Mapping[str, Any]) -> None:
        """Refuse a search over a limit."""
        self._take_read()
        self._check_filter(body.get("filter"), indexed)
        limit = body.get("limit")
        self._at_most("max_query_limit", DEFAULT_LIMIT if limit is None else limit, "limit")

    def check_upsert(self, points: int) -> None:
        """Refuse a write of too many points."""
        self._at_most("upsert_max_batchsize", points, "upsert limit")

    def _at_most(self, setting: str, value: int, name: str) -> None:
        most = self._limits.get(setting)
        if most is not None and value > most:
            advice = f'Help: Reduce the "{name}" parameter to or below {most}.'
            raise refuse(400, f'Bad request: Limit exceeded {value} > {most} for "{name}". {advice}')

    def _check_filter(self, raw: Json | None, indexed: Mapping[str, Any]) -> None:
        found = [condition for _, condition in conditions(raw)]
        most, largest = self._limits.get("filter_max_conditions"), self._limits.get("condition_max_size")
        if most is not None and len(found) > most:
            advice = "Help: Reduce the amount of conditions of your filter."
            raise refuse(400, f"Bad request: Filter condition limit reached ({len(found)} > {most}). {advice}")
        for condition in found:
            size = _size(condition)
            if largest is not None and size > largest:
                advice = "Help: Reduce the size of your condition."
                raise refuse(400, f"Bad request: Condition size limit reached ({size} > {largest}). {advice}")
            if self._limits.get("unindexed_filtering_retrieve") is False:
                _require_index(condition, indexed)

    def _take_read(self) -> None:
        most = self._limits.get("read_rate_limit")
        if most is None:
            return
        now = time.monotonic()
        self._reads = min(float(most), self._reads + (now - self._read_at) * most / MINUTE_S)
        self._read_at = now
        if self._reads < 1:
            wait = max(1, round((1 - self._reads) * MINUTE_S / most))
            available = f"Operation requires 1 tokens but only {self._reads:.1f} were available"
            problem = f"Read rate limit exceeded: {available}. Retry after {wait}s"
            message = f"Rate limiting exceeded: {problem}"
            raise RefusalError(Refusal(status=429, message=message, retry_after_s=wait))
        self._reads -= 1


def _size(condition: Json) -> int:
    match = condition.get("match") or {}
    return max(len(match.get(name) or []) for name in ("any", "except")) or len(condition.get("has_id") or [])


def _require_index(condition: Json, indexed: Mapping[str, Any]) -> None:
    key = condition.get("key")
    if key is None or key in indexed:
        return
    match = condition.get("match") or {}
    values = match.get("any") or match.get("except") or [match.get("value")]
    kind = TYPES.get(type(values[0]), "keyword")
    problem = f'Index required but not found for "{key}" of one of the following types: [{kind}]'
    raise refuse(400, f"Bad request: {problem}. Help: Create an index for this key or use a different filter.")
