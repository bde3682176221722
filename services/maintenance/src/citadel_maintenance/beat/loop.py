"""The beat's loop: takes the lead if it is free, and publishes what is due while it leads."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from citadel_common.stores.redis import ERRORS
from citadel_common.supervisor import NULL_SUPERVISOR, Supervisor
from citadel_common.timestamps import from_epoch
from citadel_common.worker.health import touch
from citadel_maintenance.beat.entry import Entry
from citadel_maintenance.beat.ledger import Ledger, Message
from citadel_maintenance.beat.lock import LeaderLock
from citadel_maintenance.beat.schedule import ScheduledEntry

log = structlog.get_logger(__name__)


class Beat:
    """One candidate.

    Args:
        entries: The schedule.
        lock: The leader's lock.
        ledger: The ledger of settled slots.
        message_of: Builds the message of an entry's slot.
        now: Returns the broker's time in seconds: all candidates have the same, whatever their hosts' clocks say.
        turn: Longest seconds between two turns of the loop.
        health_file: File touched at each turn.
        supervisor: Service manager, told of each turn.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        lock: LeaderLock,
        ledger: Ledger,
        message_of: Callable[[Entry, int], Message],
        *,
        now: Callable[[], float],
        turn: float,
        health_file: Path | None = None,
        supervisor: Supervisor = NULL_SUPERVISOR,
    ) -> None:
        self._entries = entries
        self._lock = lock
        self._ledger = ledger
        self._message_of = message_of
        self._seconds = now
        self._longest_pause = turn
        self._health_file = health_file
        self._supervisor = supervisor
        self._has_begun = False
        self._settled: dict[str, int] = {}
        self._states: dict[str, ScheduledEntry] = {}
        self._store_answers = True

    def run(self, stop: threading.Event) -> None:
        """Turn until `stop` is set, then release the lead at once."""
        self._supervisor.ready("looking for a leader")
        while not stop.is_set():
            self._turn()
            stop.wait(self._pause())
        try:
            self._lock.release()
        except ERRORS as error:
            log.warning("release_failed", error=type(error).__name__)

    def _turn(self) -> None:
        self._supervisor.alive("leading" if self._lock.is_held else "standing by")
        if self._health_file is not None:
            touch(self._health_file)
        try:
            if self._leads():
                self._publish_due()
            self._store_answered()
        except ERRORS as error:
            self._store_failed(error)
        except Exception:
            log.exception("beat_turn_crashed")

    def _leads(self) -> bool:
        if self._lock.is_held and self._lock.keep():
            return True
        self._has_begun = False
        if not self._lock.take():
            self._settled = {}  # from now on another candidate settles slots
            return False
        return True

    def _publish_due(self) -> None:
        if not self._has_begun:
            self._begin()
        for entry in self._entries:
            self._try_to_process(entry)
            if not self._lock.is_held:
                return

    def _try_to_process(self, entry: Entry) -> None:
        """Process one entry; its failure does not affect other entries, but a failure of the store does."""
        try:
            self._process(entry)
        except ERRORS:
            raise
        except Exception:
            log.exception("entry_failed", entry=entry.name)

    def _begin(self) -> None:
        """Load what was settled before; a new entry runs from its next slot on.

        If the store was emptied, this candidate's own memory counts, provided that nobody else led meanwhile.
        """
        now = self._now()
        known, before = self._ledger.slots(), self._ledger.states()
        self._settled = {
            entry.name: known.get(entry.name) or self._settled.get(entry.name) or entry.slots.latest(now)
            for entry in self._entries
        }
        self._states = {entry.name: self._state(entry, before.get(entry.name)) for entry in self._entries}
        removed = (known.keys() | before.keys()) - self._settled.keys()
        self._ledger.introduce(self._states.values(), self._settled, removed)
        self._has_begun = True

    def _process(self, entry: Entry) -> None:
        now = self._now()
        if entry.is_far_ahead(self._settled[entry.name], now):
            self._rewind(entry, now)
        due = entry.due(self._settled[entry.name], now)
        if due.missed is not None:
            self._skip(entry, *due.missed)
        for slot in due.run:
            if not self._lock.is_held:
                return
            self._publish(entry, slot)

    def _rewind(self, entry: Entry, now: int) -> None:
        slot = entry.slots.latest(now)
        log.warning("clock_set_back", entry=entry.name, settled=_text(self._settled[entry.name]))
        self._ledger.rewind(entry.name, slot)
        self._settled[entry.name] = slot

    def _skip(self, entry: Entry, first: int, last: int) -> None:
        if self._settle(entry, last, None):
            log.warning("slot_missed", entry=entry.name, first=_text(first), last=_text(last))

    def _publish(self, entry: Entry, slot: int) -> None:
        if self._settle(entry, slot, self._message_of(entry, slot)):
            late = (self._now() - slot) / 1000
            log.info("slot_published", entry=entry.name, slot=_text(slot), task_id=entry.task_id(slot), late=late)

    def _settle(self, entry: Entry, slot: int, message: Message | None) -> bool:
        """Settle a slot; return whether this candidate settled it now."""
        state = replace(self._states[entry.name], next_at=entry.slots.following(slot) / 1000)
        if message is not None:
            state = replace(
                state, last_slot=slot / 1000, last_task_id=entry.task_id(slot), published_at=self._seconds()
            )
        outcome = self._ledger.settle(state, slot, message)
        if outcome == "not_leader":
            self._lock.lost("taken or expired")
            return False
        self._settled[entry.name] = slot
        if outcome == "done":
            self._states[entry.name] = state
        else:
            log.info("slot_already_settled", entry=entry.name, slot=_text(slot))
        return outcome == "done"

    def _state(self, entry: Entry, before: ScheduledEntry | None) -> ScheduledEntry:
        state = ScheduledEntry(
            name=entry.name,
            task=entry.spec.name,
            when=str(entry.slots),
            next_at=entry.slots.following(self._settled[entry.name]) / 1000,
            leader=self._lock.token,
        )
        if before is None:
            return state
        return replace(
            state,
            last_slot=before.last_slot,
            last_task_id=before.last_task_id,
            published_at=before.published_at,
        )

    def _pause(self) -> float:
        """Return the seconds until the next slot, at most until the lock must be looked at again."""
        if not self._lock.is_held or not self._has_begun or not self._store_answers:
            return self._longest_pause
        now = self._now()
        upcoming = (entry.slots.following(self._settled[entry.name]) - now for entry in self._entries)
        soonest = min((left for left in upcoming if left > 0), default=self._longest_pause * 1000)
        return min(soonest / 1000, self._longest_pause)

    def _now(self) -> int:
        """Return the milliseconds since the epoch."""
        return int(self._seconds() * 1000)

    def _store_answered(self) -> None:
        if not self._store_answers:
            self._store_answers = True
            log.info("store_answers_again")

    def _store_failed(self, error: Exception) -> None:
        if self._store_answers:
            self._store_answers = False
            log.warning("store_unavailable", error=type(error).__name__)
        self._lock.store_failed()


def _text(slot: int) -> str:
    return from_epoch(slot / 1000)
