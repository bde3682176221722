"""Admission of steps to resources whose limits hold for the whole fleet, such as LLM endpoints.

A step of such a resource executes while its worker holds one of the resource's slots for it. One that gets none waits
in the database, and this worker forgets it. When a call ends, its slot goes to the step whose turn it is, whichever
worker had it before.
"""

import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import structlog

from citadel_common.errors import CitadelError
from citadel_orchestration.db.admission import Slots
from citadel_orchestration.db.models import Effects, StepClaim, StepRef
from citadel_orchestration.step_types import Resource

log = structlog.get_logger(__name__)
LONGEST_COOLDOWN = 900.0
"""Seconds that a resource is left alone at most: then one call finds out."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A slot that this worker holds.

    Attributes:
        resource: Whose slot it is.
        token: Names the holder.
    """

    resource: Resource
    token: UUID


class Host(Protocol):
    """The engine, as admission sees it."""

    @property
    def room(self) -> int:
        """How many more steps may execute here."""

    def admit(self, ref: StepRef, attempt: int, resource: str) -> Effects:
        """Claim a step that waits for a slot."""

    def follow(self, effects: Effects) -> None:
        """Execute what was claimed."""

    def is_in_flight(self, ref: StepRef, attempt: int) -> bool:
        """Return True while a step is this worker's."""


class Admission:
    """The slots of one worker; thread-safe.

    Args:
        slots: The slots of the fleet.
        host: The engine.
        known: Resources that steps of this worker may need.
    """

    def __init__(self, slots: Slots, host: Host, known: Iterable[Resource] = ()) -> None:
        self._slots = slots
        self._host = host
        self._known = {resource.name: resource for resource in known}
        self._ensured: set[Resource] = set()
        self._held: set[UUID] = set()
        self._granted: dict[tuple[StepRef, int], Slot] = {}
        self._lock = threading.Lock()

    def enter(self, claim: StepClaim, resource: Resource) -> Slot | None:
        """Return a slot for a claimed step: the one that it was admitted with, or a free one; None if it must wait.

        Raises:
            StoreUnavailable: PostgreSQL does not answer.
        """
        with self._lock:
            granted = self._granted.get((claim.ref, claim.attempt))
            if granted is not None and granted.resource.name == resource.name:
                return self._granted.pop((claim.ref, claim.attempt))
        return self._acquire(resource, in_turn=False)

    def leave(self, slot: Slot, *, cool_down: float = 0.0) -> None:
        """Give a slot to the next step, or free it; let nothing start there for `cool_down` seconds."""
        with suppress(CitadelError), self._kept(slot):  # else it runs out
            if cool_down > 0:
                self._slots.cool_down(slot.resource.name, min(cool_down, LONGEST_COOLDOWN))
            elif self._host.room and self._is_held(slot) and self._serve(slot):
                return
            self._release(slot)
        self.admit(slot.resource)  # a step may have queued since the look

    def settle(self, ref: StepRef, attempt: int) -> None:
        """Free the slot of an admitted step that this worker no longer has, and that has not executed."""
        with self._lock:
            slot = self._granted.get((ref, attempt))
            if slot is None or self._host.is_in_flight(ref, attempt):
                return
            del self._granted[ref, attempt]
        self.leave(slot)

    def admit(self, resource: Resource) -> None:
        """Take steps out of the queue of a resource while there are slots, and room here; the sweep takes the rest."""
        with suppress(CitadelError):
            while self._host.room and self._slots.servable([resource.name]):
                slot = self._acquire(resource, in_turn=True)
                if slot is None:
                    return
                with self._kept(slot):
                    if not self._serve(slot):
                        self._release(slot)

    def granted(self) -> list[tuple[StepRef, int]]:
        """Return the admitted steps that do not execute yet, with their attempts."""
        with self._lock:
            return list(self._granted)

    def servable(self) -> list[Resource]:
        """Return the resources that have a free slot and a step that waits for it."""
        with self._lock:
            names = list(self._known)
        return [self._known[name] for name in self._slots.servable(names)] if names else []

    def renew(self) -> None:
        """Extend the leases of the slots held."""
        with self._lock:
            tokens = list(self._held)
        if tokens:
            lost = set(tokens) - self._slots.renew(tokens)
            with self._lock:
                self._held -= lost

    def release_expired(self) -> None:
        """Free the slots of workers that are gone."""
        count = self._slots.release_expired()
        if count:
            log.warning("slots_released", count=count)

    def close(self) -> None:
        """Free all slots of this worker."""
        self._slots.release_all()

    def _serve(self, slot: Slot) -> bool:
        """Execute the step whose turn it is in this slot; return False if none waits."""
        name = slot.resource.name
        while (found := self._slots.next_step(name)) is not None:
            effects = self._host.admit(*found, name)
            if not effects.claims:
                continue  # another worker was faster, or the step is over
            [claim] = effects.claims
            with self._lock:
                self._granted[claim.ref, claim.attempt] = slot
            self._host.follow(effects)
            return True
        return False

    def _acquire(self, resource: Resource, *, in_turn: bool) -> Slot | None:
        if resource not in self._ensured:
            self._slots.ensure(resource.name, resource.limit)
            with self._lock:
                self._known[resource.name] = resource
                self._ensured.add(resource)
        slot = Slot(resource=resource, token=uuid.uuid4())
        if not self._slots.acquire(resource.name, resource.limit, slot.token, in_turn=in_turn):
            return None
        with self._lock:
            self._held.add(slot.token)
        return slot

    def _release(self, slot: Slot) -> None:
        self._slots.release(slot.token)
        self._forget(slot)

    @contextmanager
    def _kept(self, slot: Slot) -> Iterator[None]:
        """Renew a slot no more if the block fails."""
        try:
            yield
        except BaseException:
            self._forget(slot)
            raise

    def _is_held(self, slot: Slot) -> bool:
        with self._lock:
            return slot.token in self._held

    def _forget(self, slot: Slot) -> None:
        with self._lock:
            self._held.discard(slot.token)
