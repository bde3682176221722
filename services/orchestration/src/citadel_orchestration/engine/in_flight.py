"""The steps that this worker has claimed and not yet ended: their leases are renewed, their calls can be cancelled."""

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from citadel_common.backoff import full_jitter
from citadel_common.deadline import Deadline
from citadel_common.loop_thread import Call
from citadel_orchestration.db.models import StepClaim, StepRef

FIRST_LOOK = 5.0
LONGEST_WAIT = 60.0
"""Seconds until a look whether the texts of a step, whose vectors do not come, are still there; doubled each time."""
LONGEST_RESEND = 1800.0
"""Seconds until the first such look, at most; doubled each time that they are sent: they may end their workers."""
FIRST_RETRY = 1.0
LONGEST_RETRY = 30.0
"""Seconds until texts that the broker did not take are sent again, at most; doubled each time, with full jitter."""


@dataclass(kw_only=True)
class StepInFlight:
    """One claimed step.

    Attributes:
        claim: The right to execute it.
        leased_at: When its lease was asked for, the last time with success (monotonic).
        call: Its coroutine on the event loop; None while it waits for vectors, or is about to begin.
        look_at: When its texts are looked for (monotonic); None while it does not wait for vectors.
        sends: Times that they were sent.
        looks: Looks since then.
        refusals: Times that the broker did not take them.
        refused: Whether it did not take them the last time.
        was_missing: Whether the last look did not find them.
        deadline: When it fails because no vectors have come.
    """

    claim: StepClaim
    leased_at: float
    call: Call[Any] | None = None
    look_at: float | None = None
    sends: int = 0
    looks: int = 0
    refusals: int = 0
    refused: bool = False
    was_missing: bool = False
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
            self._steps[claim.ref] = StepInFlight(claim=claim, leased_at=claim.leased_at)
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
                step.call, step.look_at = call, None
                return
        call.cancel()

    def awaits_vectors(self, claim: StepClaim, deadline: Deadline) -> Deadline:
        """Record that a step's texts are being sent; return the deadline of the first time that they were."""
        with self._lock:
            step = self._steps.get(claim.ref)
            if step is None:
                return deadline
            step.look_at = time.monotonic() + min(LONGEST_RESEND, FIRST_LOOK * 2.0 ** min(step.sends, 10))
            step.sends += 1
            step.looks, step.refused, step.was_missing = 0, False, False
            step.deadline = step.deadline or deadline
            return step.deadline

    def was_not_sent(self, claim: StepClaim) -> None:
        """Record that the broker did not take the texts, or may not have."""
        with self._lock:
            step = self._steps.get(claim.ref)
            if step is not None:
                step.refused = True
                wait = full_jitter(step.refusals, base=FIRST_RETRY, factor=2.0, cap=LONGEST_RETRY)
                step.refusals += 1
                step.look_at = time.monotonic() + wait

    def looked_at(self, claim: StepClaim, *, missing: bool, at_once: bool) -> str | None:
        """Record what a look for a step's texts has found.

        Args:
            claim: The step.
            missing: The broker has neither the texts nor their answer.
            at_once: They need not be missing twice.

        Returns:
            Why the texts have to be sent again; None if they have not.
        """
        with self._lock:
            step = self._of(claim)
            if step is None or step.look_at is None:
                return None
            before, step.was_missing = step.was_missing, missing
            reason = "refused" if step.refused else "missing"
            step.looks = 0 if missing else step.looks + 1
            step.look_at = time.monotonic() + min(LONGEST_WAIT, FIRST_LOOK * 2.0 ** min(step.looks, 10))
            return reason if missing and (before or at_once or step.refused) else None

    def expired(self) -> list[StepClaim]:
        """Return the steps whose vectors did not come in time."""
        with self._lock:
            return [
                step.claim
                for step in self._steps.values()
                if step.look_at is not None and step.deadline is not None and step.deadline.remaining <= 0
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
            return sum(step.look_at is None for step in self._steps.values())

    def to_look_at(self, *, everything: bool) -> list[StepClaim]:
        """Return the steps whose texts are due to be looked for, or all that wait for vectors."""
        now = time.monotonic()
        with self._lock:
            waiting = [step for step in self._steps.values() if step.look_at is not None]
            return [step.claim for step in waiting if everything or (step.look_at or 0.0) <= now]

    def waiting(self) -> list[StepClaim]:
        """Return the steps that wait for vectors."""
        return self.to_look_at(everything=True)

    def renewed(self, claims: list[StepClaim], at: float) -> None:
        """Record that the leases of steps were renewed, by a statement sent at that time (monotonic)."""
        with self._lock:
            for claim in claims:
                step = self._of(claim)
                if step is not None:
                    step.leased_at = at

    def overdue(self, before: float) -> list[StepClaim]:
        """Return the steps whose calls are under way on leases from before that time (monotonic)."""
        with self._lock:
            return [
                step.claim
                for step in self._steps.values()
                if step.call is not None and step.leased_at < before and not step.call.has_ended
            ]

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
