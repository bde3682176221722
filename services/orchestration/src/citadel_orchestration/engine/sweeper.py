"""The leaderless sweeper: every worker looks for what was left lying, and takes it if nobody else does.

Committed and never begun, leased by a worker that is gone, due again, past a timeout or a deadline, ended and not
answered: whatever is lost between two processes is found here.
"""

import functools
import random
import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import structlog

from citadel_common.errors import CitadelError, StoreUnavailable
from citadel_common.stores.postgres import Database
from citadel_orchestration.db.models import Effects, EndedRun, ParentStep, StepClaim, StepRef
from citadel_orchestration.engine.engine import Engine
from citadel_orchestration.engine.transitions import Transitions

log = structlog.get_logger(__name__)
BATCH = 100
"""Things taken at once; more are found by the next look, which follows at once."""
_ACTIVE = " AND EXISTS (SELECT 1 FROM runs WHERE runs.run_id = steps.run_id AND status IN ('queued', 'running'))"
_STEP = "SELECT run_id, step_id, item, attempt FROM steps WHERE "
READY = _STEP + "status = 'ready' AND lease_until < now()" + _ACTIVE + " ORDER BY lease_until LIMIT %s"
LEFT = _STEP + "status = 'running' AND lease_until < now()" + _ACTIVE + " ORDER BY lease_until LIMIT %s"
DUE = _STEP + "status = 'waiting' AND due_at <= now()" + _ACTIVE + " ORDER BY due_at LIMIT %s"
OVER = "SELECT run_id FROM runs WHERE finished_at IS NULL AND deadline_at < now() LIMIT %s"
UNANSWERED = (
    "SELECT run_id, status, reply_to FROM runs WHERE reply_to IS NOT NULL"
    " AND finished_at < now() - interval '2 seconds' LIMIT %s"
)
UNREPORTED = (
    "SELECT steps.run_id, step_id, item, attempt, child_run_id FROM steps JOIN runs ON runs.run_id = child_run_id"
    " WHERE steps.status = 'waiting' AND child_run_id IS NOT NULL"
    " AND runs.finished_at < now() - interval '2 seconds' LIMIT %s"
)
ORPHANS = (
    "SELECT child.run_id FROM runs AS child JOIN steps AS parent ON parent.run_id = parent_run_id"
    " AND parent.step_id = parent_step AND parent.item = parent_item"
    " WHERE child.finished_at IS NULL AND parent_run_id IS NOT NULL"
    " AND (parent.status <> 'waiting' OR parent.attempt <> parent_attempt)"
    " AND coalesce(parent.finished_at, '-infinity') < now() - interval '2 seconds' LIMIT %s"
)
HELD = (
    "SELECT DISTINCT concurrency_key FROM runs WHERE finished_at IS NULL AND concurrency_key IS NOT NULL"
    " AND status = 'queued' AND created_at < now() - interval '2 seconds' LIMIT %s"
)


class Sweeper:
    """Looks every `interval` seconds, from `start` to `stop`, and renews this worker's leases."""

    def __init__(
        self,
        *,
        database: Database,
        transitions: Transitions,
        engine: Engine,
        answer: Callable[[EndedRun], None],
        wiped: Callable[[], bool],
        accepted: Callable[[], None],
        owner: str,
        interval: float,
    ) -> None:
        self._database = database
        self._transitions = transitions
        self._engine = engine
        self._answer = answer
        self._wiped = wiped
        self._accepted = accepted
        self._owner = owner
        self._interval = interval
        self._lease = lease = transitions.lease
        self._connected_since = time.monotonic()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._every, args=(interval, self.sweep), name="sweeper", daemon=True),
            threading.Thread(target=self._every, args=(lease / 4, self.renew), name="leases", daemon=True),
        ]

    def start(self) -> None:
        """Begins."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=self._lease)

    def sweep(self) -> None:
        """One look at everything."""
        self._resend()
        self._deadlines()
        self._expired()
        if self._engine.room:
            self._steps(READY, self._transitions.take_over)
            if self._is_settled:
                self._steps(LEFT, self._transitions.take_over)
            self._steps(DUE, self._transitions.wake)
            self._held()
        self._unanswered()
        self._unreported()
        self._orphans()
        self._harmless(self._accepted)

    def renew(self) -> None:
        """Extends the leases of what this worker holds; what it no longer holds is cancelled here."""
        claims = self._engine.in_flight.claims()
        if not claims:
            return
        with self._database.cursor() as cursor:
            cursor.execute(
                """
                UPDATE steps SET lease_until = now() + make_interval(secs => %s)
                FROM unnest(%s::uuid[], %s::text[], %s::int[], %s::int[]) AS mine (run_id, step_id, item, attempt)
                WHERE steps.run_id = mine.run_id AND steps.step_id = mine.step_id AND steps.item = mine.item
                    AND steps.attempt = mine.attempt AND status = 'running' AND lease_owner = %s
                RETURNING steps.run_id, steps.step_id, steps.item, steps.attempt
                """,
                [self._lease, *_columns(claims), self._owner],
            )
            kept = set(cursor.fetchall())
        self._engine.in_flight.drop([claim for claim in claims if _key(claim) not in kept])

    def _steps(self, query: str, act: Callable[[StepRef, int], Effects]) -> None:
        for run_id, step_id, item, attempt in self._rows(query):
            ref = StepRef(run_id=run_id, step_id=step_id, item=item)
            self._try(functools.partial(act, ref, attempt))
            if not self._engine.room:
                return

    @property
    def _is_settled(self) -> bool:
        """Whether PostgreSQL has been there long enough for others to have renewed their leases after an outage."""
        return time.monotonic() - self._connected_since > self._lease / 2

    def _expired(self) -> None:
        for claim in self._engine.in_flight.expired():
            self._engine.in_flight.drop([claim])
            self._try(functools.partial(self._transitions.time_out_step, claim.ref, claim.attempt))

    def _deadlines(self) -> None:
        for (run_id,) in self._rows(OVER):
            self._try(functools.partial(self._transitions.time_out, run_id))

    def _held(self) -> None:
        for (key,) in self._rows(HELD):
            self._harmless(functools.partial(self._engine.release, key))

    def _unanswered(self) -> None:
        for run_id, status, reply_to in self._rows(UNANSWERED):
            ended = EndedRun(run_id=run_id, status=status, parent=None, reply_to=reply_to, concurrency_key=None)
            self._harmless(functools.partial(self._answer, ended))

    def _unreported(self) -> None:
        for run_id, step_id, item, attempt, child in self._rows(UNREPORTED):
            parent = ParentStep(ref=StepRef(run_id=run_id, step_id=step_id, item=item), attempt=attempt)
            self._harmless(functools.partial(self._engine.report, parent, child))

    def _orphans(self) -> None:
        for (run_id,) in self._rows(ORPHANS):
            self._try(functools.partial(self._transitions.cancel_orphan, run_id))

    def _resend(self) -> None:
        for claim in self._engine.in_flight.to_resend(everything=self._wiped()):
            self._engine.resend(claim)

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        with self._database.cursor() as cursor:
            cursor.execute(query, [BATCH])
            return cursor.fetchall()

    def _try(self, transition: Callable[[], Effects]) -> None:
        self._harmless(lambda: self._engine.follow(transition()))

    def _harmless(self, act: Callable[[], None]) -> None:
        """What is wrong with one run or step keeps the sweep from no other."""
        try:
            act()
        except StoreUnavailable:
            raise
        except CitadelError as error:
            log.info("sweep_step_refused", error=error.code)
        except Exception:
            log.exception("sweep_step_crashed")

    def _every(self, seconds: float, act: Callable[[], None]) -> None:
        while not self._stop.wait(seconds * random.uniform(0.8, 1.2)):  # noqa: S311  (only spreads the workers)
            began = time.monotonic()
            try:
                act()
            except StoreUnavailable as error:
                self._connected_since = time.monotonic()
                log.warning("sweep_failed", error=error.message)
            except Exception:
                log.exception("sweep_crashed")
            if time.monotonic() - began > self._lease:
                log.warning("sweep_slow", seconds=round(time.monotonic() - began, 1))


def _key(claim: StepClaim) -> tuple[UUID, str, int, int]:
    return claim.ref.run_id, claim.ref.step_id, claim.ref.item, claim.attempt


def _columns(claims: list[StepClaim]) -> list[list[Any]]:
    return [list(column) for column in zip(*map(_key, claims), strict=True)]
