"""The steps that this worker has claimed and not yet ended: their leases are renewed, their calls can be cancelled."""

import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from citadel_common.deadline import Deadline
from citadel_orchestration.db.models import StepClaim, StepRef

SOON = 1.0
FIRST_WAIT = 10.0
LONGEST_WAIT = 300.0
"""Seconds until a step whose vectors do not come is sent to the embeddings workers again; doubled each time."""


@dataclass(kw_only=True)
class Flight:
    """One claimed step.

    Attributes:
        claim: The right to execute it.
        call: Its execution on the event loop; None while it waits for vectors, or is about to begin.
        resend_at: When its texts are sent again (monotonic); None while it does not wait for vectors.
        wait: Seconds to the next time.
        deadline: When it is given up for want of vectors.
    """

    claim: StepClaim
    call: "Future[Any] | None" = None
    resend_at: float | None = None
    wait: float = FIRST_WAIT
    deadline: Deadline | None = None


@dataclass
class InFlight:
    """The flights of one worker; thread-safe."""

    _flights: dict[StepRef, Flight] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __len__(self) -> int:
        with self._lock:
            return len(self._flights)

    def add(self, claim: StepClaim) -> None:
        """Notes a claimed step; what an earlier attempt of it still does here is cancelled."""
        with self._lock:
            before = self._flights.get(claim.ref)
            self._flights[claim.ref] = Flight(claim=claim)
        if before is not None and before.call is not None:
            before.call.cancel()

    def remove(self, claim: StepClaim) -> None:
        """Forgets an ended one, unless a later attempt has taken its place."""
        with self._lock:
            flight = self._flights.get(claim.ref)
            if flight is not None and flight.claim.attempt == claim.attempt:
                del self._flights[claim.ref]

    def executes(self, claim: StepClaim, call: "Future[Any]") -> None:
        """Notes the execution of a step; one that is this worker's no longer, or anew, is cancelled."""
        with self._lock:
            flight = self._flights.get(claim.ref)
            if flight is not None and flight.claim.attempt == claim.attempt:
                flight.call, flight.resend_at = call, None
                return
        call.cancel()

    def awaits_vectors(self, claim: StepClaim, deadline: Deadline) -> Deadline:
        """Notes that a step's texts are sent to the embeddings workers; the deadline of the first time."""
        with self._lock:
            flight = self._flights.get(claim.ref)
            if flight is None:
                return deadline
            flight.resend_at = time.monotonic() + flight.wait
            flight.wait = min(LONGEST_WAIT, flight.wait * 2)
            flight.deadline = flight.deadline or deadline
            return flight.deadline

    def was_not_sent(self, claim: StepClaim) -> None:
        """Notes that the broker did not take the texts."""
        with self._lock:
            flight = self._flights.get(claim.ref)
            if flight is not None:
                flight.resend_at = time.monotonic() + SOON

    def expired(self) -> list[StepClaim]:
        """The steps whose vectors did not come in time."""
        with self._lock:
            return [
                flight.claim
                for flight in self._flights.values()
                if flight.resend_at is not None and flight.deadline is not None and flight.deadline.remaining <= 0
            ]

    def claims(self) -> list[StepClaim]:
        """All claims."""
        with self._lock:
            return [flight.claim for flight in self._flights.values()]

    def executing(self) -> int:
        """How many steps execute here, those that wait for vectors not counted."""
        with self._lock:
            return sum(flight.resend_at is None for flight in self._flights.values())

    def to_resend(self, *, everything: bool) -> list[StepClaim]:
        """The steps whose vectors do not come, or all that wait for vectors."""
        now = time.monotonic()
        with self._lock:
            waiting = [flight for flight in self._flights.values() if flight.resend_at is not None]
            return [flight.claim for flight in waiting if everything or (flight.resend_at or 0.0) <= now]

    def drop(self, claims: list[StepClaim]) -> None:
        """Cancels steps that are no longer this worker's."""
        for claim in claims:
            with self._lock:
                flight = self._flights.get(claim.ref)
                if flight is None or flight.claim.attempt != claim.attempt:
                    continue
                del self._flights[claim.ref]
            if flight.call is not None:
                flight.call.cancel()
