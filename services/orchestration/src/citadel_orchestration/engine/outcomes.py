"""Outcomes of steps that PostgreSQL does not take yet: they wait in the worker, since they may have cost money.

A thread of transitions tries once. What is refused waits here, and no longer holds the thread: one thread tries again,
with growing pauses. While PostgreSQL is known to refuse, further outcomes come here at once. Each wait has an end: an
output is parked in Redis after `PATIENCE`, or when the worker ends; everything else is left to the lease.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog

from citadel_common.errors import CitadelError, StoreFailed, StoreRejected, StoreUnavailable
from citadel_common.stores.redis import ERRORS
from citadel_orchestration.db.models import Effects, StepClaim
from citadel_orchestration.engine.fair_threads import FairThreadPool
from citadel_orchestration.engine.in_flight import StepsInFlight
from citadel_orchestration.engine.parked_outputs import ParkedOutputs

T = TypeVar("T")
log = structlog.get_logger(__name__)
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0
"""Seconds between two rounds. The longest is well below the time for which others leave expired leases alone."""
SLOW = 1.0
"""Seconds of a refused try after which the round ends."""
PATIENCE = 600.0
"""Seconds that an outcome waits in the worker."""
PATIENCE_WITH_FAILURES = 30.0
"""Seconds after which an outcome that PostgreSQL itself fails at, while it answers, counts as refused for good."""
PATIENCE_OF_ANSWERS = 30.0
"""Seconds that a thread waits for PostgreSQL, to go on with what another process keeps as well."""
NOTHING = object()
"""Stands for the output of a step that has none."""


def patiently(transition: Callable[[], T], stopping: threading.Event) -> T:
    """Return the result of a transition; try again for a while where PostgreSQL does not take it yet.

    Raises:
        StoreUnavailable: It did not in time, or the worker ends.
        StoreRejected: PostgreSQL itself has failed at it all the time.
    """
    pause, end = FIRST_PAUSE, time.monotonic() + PATIENCE_OF_ANSWERS
    while True:
        try:
            return transition()
        except StoreUnavailable as error:
            if time.monotonic() > end and isinstance(error, StoreFailed):
                raise StoreRejected(error.message) from None
            if time.monotonic() > end or stopping.wait(pause):
                raise
            pause = min(LONGEST_PAUSE, pause * 2)


def internal_error(error: Exception) -> CitadelError:
    """Return the error that a step fails with because of a defect."""
    return CitadelError(f"internal error: {type(error).__name__}")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of an attempt, to be recorded.

    Attributes:
        claim: The attempt.
        transition: Records it; fenced, so that it may be repeated.
        on_refusal: Called if PostgreSQL will never take it.
        output: What the step has brought; `NOTHING` if it is not to be kept.
        since: When it was to be recorded first (monotonic).
    """

    claim: StepClaim
    transition: Callable[[], Effects]
    on_refusal: Callable[[CitadelError], None]
    output: Any = NOTHING
    since: float = field(default_factory=time.monotonic)


class Outcomes:
    """Records outcomes, now or later; thread-safe.

    Args:
        in_flight: The steps of this worker; a step whose outcome waits keeps its lease.
        follow: Carries out what a committed transition asks for.
        threads: Where it does so for outcomes that had to wait.
        parked: Outputs that outlive the worker.
        late: Called with the attempt of an outcome that changes nothing: it was over.
    """

    def __init__(
        self,
        in_flight: StepsInFlight,
        follow: Callable[[Effects], None],
        threads: FairThreadPool,
        parked: ParkedOutputs,
        late: Callable[[StepClaim], None],
    ) -> None:
        self._in_flight = in_flight
        self._follow = follow
        self._threads = threads
        self._parked = parked
        self._late = late
        self._waiting: list[Outcome] = []
        self._is_refused = False
        self._closed = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="outcomes", daemon=True)
        self._thread.start()

    def record(self, outcome: Outcome) -> None:
        """Record an outcome and follow it, or let it wait.

        Raises:
            StoreRejected: PostgreSQL never takes it.
            CitadelError: The transition refuses it.
        """
        if not self._is_refused and self._is_recorded(outcome):
            return
        log.warning("outcome_waits", **_about(outcome))
        if self._closed.is_set():
            self._give_up(outcome)
            return
        with self._changed:
            self._waiting.append(outcome)
            self._changed.notify()

    def _is_recorded(self, outcome: Outcome) -> bool:
        """Record an outcome and follow it; return False if PostgreSQL does not take it yet."""
        try:
            effects = outcome.transition()
        except StoreUnavailable:
            return False
        self._ended(outcome, effects)
        self._follow(effects)
        return True

    def _ended(self, outcome: Outcome, effects: Effects) -> None:
        self._in_flight.remove(outcome.claim)
        if not effects.applied:
            self._late(outcome.claim)

    def close(self) -> None:
        """Stop to try, and park the outputs that still wait; their steps are no longer in flight then."""
        self._closed.set()
        with self._changed:
            self._changed.notify()
        if self._thread is not threading.current_thread():
            self._thread.join()
        while (outcome := self._next()) is not None:
            self._give_up(outcome)

    def _run(self) -> None:
        pause = FIRST_PAUSE
        while not self._closed.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed.is_set())
            self._closed.wait(pause)
            self._is_refused = not self._round()
            pause = min(LONGEST_PAUSE, pause * 2) if self._is_refused else FIRST_PAUSE

    def _round(self) -> bool:
        """Try each outcome that waits once; return False if PostgreSQL has taken none of them."""
        settled, refused = 0, 0
        for _ in range(len(self._waiting)):
            outcome, began = self._next(), time.monotonic()
            if outcome is None or self._closed.is_set():
                self._put_back(outcome)
                return False
            try:
                self._settle(outcome)
                settled += 1
            except StoreUnavailable:
                if began - outcome.since > PATIENCE and self._give_up(outcome):
                    continue
                self._put_back(outcome)
                refused += 1
                if time.monotonic() - began > SLOW:  # each further try may wait for its whole timeout
                    break
        return settled > 0 or not refused

    def _settle(self, outcome: Outcome) -> None:
        try:
            effects = outcome.transition()
        except StoreFailed as error:
            if time.monotonic() - outcome.since < PATIENCE_WITH_FAILURES:
                raise
            self._refuse(outcome, StoreRejected(error.message))
        except StoreUnavailable:
            raise
        except CitadelError as error:
            self._refuse(outcome, error)
        except Exception as error:
            log.exception("outcome_crashed", **_about(outcome))
            self._refuse(outcome, internal_error(error))
        else:
            self._ended(outcome, effects)
            self._later(outcome, self._follow, effects)

    def _refuse(self, outcome: Outcome, error: CitadelError) -> None:
        self._later(outcome, outcome.on_refusal, error)

    def _later(self, outcome: Outcome, act: Callable[[Any], None], argument: Any) -> None:
        try:
            self._threads.submit(outcome.claim.ref.run_id, act, argument)
        except RuntimeError:
            log.info("step_ended_too_late", **_about(outcome))

    def _give_up(self, outcome: Outcome) -> bool:
        """Let an outcome go, after its output is parked; return False if Redis does not take that either."""
        if outcome.output is not NOTHING:
            try:
                self._parked.park(outcome.claim, outcome.output)
            except ERRORS as error:
                log.error("output_lost" if self._closed.is_set() else "output_not_parked", error=type(error).__name__)
                return False
            except CitadelError as error:
                log.error("output_unusable", error=error.code, **_about(outcome))
            else:
                log.warning("output_parked", **_about(outcome))
        self._in_flight.drop([outcome.claim])
        return True

    def _next(self) -> Outcome | None:
        with self._changed:
            return self._waiting.pop(0) if self._waiting else None

    def _put_back(self, outcome: Outcome | None) -> None:
        if outcome is not None:
            with self._changed:
                self._waiting.append(outcome)


def _about(outcome: Outcome) -> dict[str, str]:
    return {"run_id": str(outcome.claim.ref.run_id), "step_id": outcome.claim.ref.step_id}
