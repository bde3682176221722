"""Lanes: the four Redis lists that kombu keeps for a queue, one for each step of priority.

Kombu names a list by the queue and the step; the list of the highest priority has no step in its name. Celery's
clients that set no priority use that list too. The two lists of the lowest priorities are one lane to users.
"""

from collections.abc import Sequence

from citadel_contracts import Queue

STEPS = (0, 3, 6, 9)
"""Lowest priority number of each list; 0 is the highest priority."""
LANES = ("interactive", "standard", "batch", "batch")
"""The lanes of the four lists."""
_SEPARATOR = "\x06\x16"


def lists_of(queue: Queue) -> list[str]:
    """Return the Redis lists of a queue, from the highest priority to the lowest."""
    return [f"{queue.value}{_SEPARATOR}{step}" if step else queue.value for step in STEPS]


def list_for(queue: Queue, priority: object) -> str:
    """Return the list for a message's priority, as kombu chooses it: anything but a number means the highest."""
    number = priority if isinstance(priority, int) else 0
    return [name for step, name in zip(STEPS, lists_of(queue), strict=True) if step <= max(number, 0)][-1]


def by_lane(lengths: Sequence[int]) -> dict[str, int]:
    """Return messages per lane from the lengths of a queue's lists."""
    lanes = dict.fromkeys(LANES, 0)
    for lane, length in zip(LANES, lengths, strict=True):
        lanes[lane] += length
    return lanes
