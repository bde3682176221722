"""Age of the oldest waiting message of each lane, in constant work whatever their number and size."""

import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from citadel_common.delivery.queues import LANES, SENT_AT_HEADER, lists_of
from citadel_contracts import Queue

if TYPE_CHECKING:
    from redis import Redis

TAIL = 8192
"""Bytes read from the end of an entry. The headers are there; the body before them may have megabytes."""
_TAILS = """
local tails = {}
for i, key in ipairs(KEYS) do
  local entry = redis.call('LINDEX', key, -1)
  tails[i] = entry and string.sub(entry, -tonumber(ARGV[1])) or ''
end
local time = redis.call('TIME')
return {string.format('%d.%06d', time[1], time[2]), tails}
"""
"""Returns the time, and the ends of the entries that are taken next, an empty string for an empty list."""
_SENT_AT = re.compile(rb'"' + SENT_AT_HEADER.encode() + rb'": ?([0-9]{1,12}(?:\.[0-9]{1,9})?)[,}]')
_ETA = re.compile(rb'"eta": ?"([0-9:T.Z+-]{10,40})"')


class OldestMessages:
    """Ages of the messages that are taken next; the age of one with an ETA begins at that time.

    Messages of foreign producers have no time of sending. Their age counts from when this process first saw the same
    message at the head of its list.
    """

    def __init__(self, client: "Redis") -> None:
        self._script: Any = client.register_script(_TAILS)
        self._lists = [
            (queue, lane, name) for queue in Queue for lane, name in zip(LANES, lists_of(queue), strict=True)
        ]
        self._seen: dict[str, tuple[bytes, float]] = {}

    def ages(self) -> Mapping[tuple[Queue, str], float]:
        """Return the ages in seconds by queue and lane; 0 for an empty lane.

        Raises:
            redis.RedisError: The broker does not answer.
        """
        now, tails = self._script(keys=[name for _, _, name in self._lists], args=[TAIL])
        ages: dict[tuple[Queue, str], float] = {}
        for (queue, lane, name), tail in zip(self._lists, tails, strict=True):
            ages[queue, lane] = max(ages.get((queue, lane), 0.0), self._age(name, tail, float(now)))
        return ages

    def _age(self, name: str, tail: bytes, broker_time: float) -> float:
        if not tail:
            self._seen.pop(name, None)
            return 0.0
        stamps = _SENT_AT.findall(tail)
        if stamps:
            # The last one: an argument of the task may contain text that looks like the header.
            return max(0.0, broker_time - max(float(stamps[-1]), _eta_in(tail)))
        now = time.monotonic()
        known, since = self._seen.get(name, (b"", now))
        if known != tail:
            since = now
        self._seen[name] = (tail, since)
        return now - since


def _eta_in(tail: bytes) -> float:
    """Return the ETA in the headers of a message, in seconds since the epoch; 0 if there is none."""
    found = _ETA.findall(tail)
    try:
        return datetime.fromisoformat(found[-1].decode()).timestamp() if found else 0.0
    except (ValueError, OverflowError):
        return 0.0
