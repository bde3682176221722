"""The steps that this worker has claimed and not yet ended: their leases are renewed, their calls can be cancelled."""

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from citadel_common.deadline import Deadline
from citadel_common.loop_thread import Call
from citadel_orchestration.db.models import StepClaim, StepRef

RESEND_SOON = 1.0
"""Seconds until texts that the broker did not take are sent again."""
FIRST_WAIT = 10.0
LONGEST_WAIT = 1800.0
"""Seconds until the texts of a step whose vectors do not come are sent again; doubled each time."""


@dataclass(kw_only=True)
class StepInFlight:
    """One claimed step.

    Attributes:
        claim: The right to execute it.
        call: Its coroutine on the event loop; None while it waits for vectors, or is about to begin.
        resend_at: When its texts are sent again (monotonic); None while it does not wait for vectors.
        wait: Seconds to the next time.
        deadline: When it fails because no vectors have come.
    """

    claim: StepClaim
    call: Call[Any] | None = None
    resend_at: float | None = None
    wait: float = FIRST_WAIT
    deadline: Deadline | None = None


@dataclass
class StepsInFlight:
    """The claimed steps of one worker; thread-safe."""

    _steps: dict[StepRef, StepInFlight] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __len__(self) -> int:
        with self._lock:
            return len(self._steps)

    def add(self, claim: StepClaim) -> None:
        """Add a claimed step and cancel the call of an earlier attempt."""
        with self._lock:
            before = self._steps.get(claim.ref)
            self._steps[claim.ref] = StepInFlight(claim=claim)
        if before is not None and before.call is not None:
            before.call.cancel()

    def remove(self, claim: StepClaim) -> None:
        """Remove a step that has ended, unless a later attempt has taken its place."""
        with self._lock:
            if self._of(claim) is not None:
                del self._steps[claim.ref]

    def executes(self, claim: StepClaim, call: Call[Any]) -> None:
        """Set the call of a step; cancel it if the attempt is no longer this worker's."""
        with self._lock:
            step = self._of(claim)
            if step is not None:
                step.call, step.resend_at = call, None
                return
        call.cancel()

    def awaits_vectors(self, claim: StepClaim, deadline: Deadline) -> Deadline:
        """Record that a step's texts are being sent; return the deadline of the first time that they were."""
        with self._lock:
            step = self._steps.get(claim.ref)
            if step is None:
                return deadline
            step.resend_at = time.monotonic() + step.wait
            step.wait = min(LONGEST_WAIT, step.wait * 2)
            step.deadline = step.deadline or deadline
            return step.deadline

    def was_not_sent(self, claim: StepClaim) -> None:
        """Record that the broker did not take the texts."""
        with self._lock:
            step = self._steps.get(claim.ref)
            if step is not None:
                step.resend_at = time.monotonic() + RESEND_SOON

    def expired(self) -> list[StepClaim]:
        """Return the steps whose vectors did not come in time."""
        with self._lock:
            return [
                step.claim
                for step in self._steps.values()
                if step.resend_at is not None and step.deadline is not None and step.deadline.remaining <= 0
            ]

    def claims(self) -> list[StepClaim]:
        """Return all claims."""
        with self._lock:
            return [step.claim for step in self._steps.values()]

    def holds(self, ref: StepRef, attempt: int) -> bool:
        """Return True while a step is in flight by that very attempt."""
        with self._lock:
            step = self._steps.get(ref)
            return step is not None and step.claim.attempt == attempt

    def executing(self) -> int:
        """Count the steps that execute here; those that wait for vectors do not."""
        with self._lock:
            return sum(step.resend_at is None for step in self._steps.values())

    def to_resend(self, *, everything: bool) -> list[StepClaim]:
        """Return the steps whose texts are due to be sent again, or all that wait for vectors."""
        now = time.monotonic()
        with self._lock:
            waiting = [step for step in self._steps.values() if step.resend_at is not None]
            return [step.claim for step in waiting if everything or (step.resend_at or 0.0) <= now]

    def drop(self, claims: list[StepClaim]) -> None:
        """Remove and cancel steps that are no longer this worker's."""
        for claim in claims:
            with self._lock:
                step = self._of(claim)
                if step is None:
                    continue
                del self._steps[claim.ref]
            if step.call is not None:
                step.call.cancel()

    def _of(self, claim: StepClaim) -> StepInFlight | None:
        """Return the step if it is in flight by that very attempt."""
        step = self._steps.get(claim.ref)
        return step if step is not None and step.claim.attempt == claim.attempt else None
