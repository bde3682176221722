"""Entries of the schedule, and which of their slots are due."""

import uuid
from dataclasses import dataclass
from typing import Any

from citadel_common.timestamps import from_epoch
from citadel_contracts import AnyTaskSpec, Lane
from citadel_maintenance.beat.slots import Slots

_IDS = uuid.UUID("5f0f5a0e-52b0-5a3f-9d3c-0c1a7b1e6f2d")
"""Namespace of the ids of periodic tasks."""
_SHORTEST_EXPIRY = 60.0
_LONGEST_EXPIRY = 24 * 3600.0
_PERIODS = 2
_FAR_AHEAD = 3_600_000
"""Milliseconds by which a settled slot may lie in the future before the clock counts as set back."""


@dataclass(frozen=True, kw_only=True)
class Due:
    """The due slots of an entry.

    Attributes:
        run: Slots to publish, in order.
        missed: First and last of the slots to skip; None if there are none.
    """

    run: tuple[int, ...] = ()
    missed: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One periodic task.

    Attributes:
        name: Its name in the schedule.
        spec: The task's contract.
        slots: When it is due.
        kwargs: Its arguments, valid for the contract's payload.
        lane: Lane of its messages.
        on_time: Milliseconds within which a slot is on time; all slots on time run.
        latest: Milliseconds within which the last missed slot still runs; None: until the next slot.
    """

    name: str
    spec: AnyTaskSpec
    slots: Slots
    kwargs: dict[str, Any]
    lane: Lane
    on_time: int
    latest: int | None

    def due(self, settled: int, now: int) -> Due:
        """Return the slots due at `now`, when all slots up to `settled` are settled."""
        first = self.slots.following(settled)
        if first > now:
            return Due()
        run = self._on_time(settled, now) or self._late(now)
        last_missed = self.slots.latest(run[0] - 1 if run else now)
        return Due(run=run, missed=(first, last_missed) if last_missed >= first else None)

    def _on_time(self, settled: int, now: int) -> tuple[int, ...]:
        found = []
        slot = self.slots.following(max(settled, now - self.on_time - 1))
        while slot <= now:
            found.append(slot)
            slot = self.slots.following(slot)
        return tuple(found)

    def _late(self, now: int) -> tuple[int, ...]:
        slot = self.slots.latest(now)
        return (slot,) if self.latest is None or now - slot <= self.latest else ()

    def is_far_ahead(self, settled: int, now: int) -> bool:
        """Return whether a settled slot lies so far in the future that a wrong clock settled it.

        After a smaller step back of the clock the entry waits, so that no slot runs twice.
        """
        return settled - now > max(_FAR_AHEAD, 2 * self._period(now))

    def task_id(self, slot: int) -> str:
        """Return the id of a slot's task. Every candidate computes the same one, so a duplicate would show."""
        return str(uuid.uuid5(_IDS, self.label(slot)))

    def label(self, slot: int) -> str:
        """Return a slot as text, such as `health 2026-01-31T12:00:00+00:00`."""
        return f"{self.name} {from_epoch(slot / 1000)}"

    def expiry(self, slot: int) -> float:
        """Return the seconds that a slot's message may wait for a worker: two periods, within bounds.

        So the queue does not fill up while it has no workers.
        """
        return min(max(_PERIODS * self._period(slot) / 1000, _SHORTEST_EXPIRY), _LONGEST_EXPIRY)

    def _period(self, moment: int) -> int:
        following = self.slots.following(moment)
        return self.slots.following(following) - following
