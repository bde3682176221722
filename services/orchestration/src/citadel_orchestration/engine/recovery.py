"""Recovery without a leader: every worker looks for lost work, and takes what no other worker takes.

Lost is what lies between two processes: a step that was committed and never begun, a step whose worker is gone, a
retry or a wait that is due, a run past its deadline, a run that ended without its result stored.
"""

import functools
import random
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar
from uuid import UUID

import structlog

from citadel_common.deadline import Deadline
from citadel_common.errors import (
    CitadelError,
    DeadlineExceeded,
    StepTimedOut,
    StoreBusy,
    StoreFull,
    StoreMisconfigured,
    StoreUnavailable,
    WorkerLost,
)
from citadel_common.stores.postgres import Cursor
from citadel_orchestration.db import concurrency_keys, lost_work, steps
from citadel_orchestration.db.models import Effects, EndedRun, StepClaim, StepRef
from citadel_orchestration.db.transaction import RunTransaction
from citadel_orchestration.engine import scheduling, step_transitions
from citadel_orchestration.engine.engine import Engine
from citadel_orchestration.engine.lease_guard import LeaseGuard
from citadel_orchestration.engine.run_commands import RunCommands
from citadel_orchestration.engine.step_deadlines import deadline_of
from citadel_orchestration.engine.step_transitions import StepTransitions
from citadel_orchestration.engine.transactions import RunTransactions, unchanged

T = TypeVar("T")
log = structlog.get_logger(__name__)
MOST_DEATHS = 5
"""Workers that may die with a step before it fails."""


class StepRecovery:
    """Transitions of steps that were lost or are due; thread-safe.

    They skip runs that another transaction holds: the sweepers of all workers find the same steps.
    """

    def __init__(self, transactions: RunTransactions) -> None:
        self._transactions = transactions

    def take_over(self, ref: StepRef, attempt: int) -> Effects:
        """Claim a step whose worker is gone, or whose message was lost; fail one that killed too many workers."""
        with self._transactions.on(ref.run_id, skip_locked=True) as tx:
            found = steps.count_death(tx, ref, attempt) if tx is not None and tx.run.may_start_steps else None
            if tx is None or found is None:
                return unchanged(tx)
            deaths, status = found
            if deaths >= MOST_DEATHS:
                step_transitions.fail(tx, ref, attempt, WorkerLost())
                return tx.effects
            if status == "running":
                steps.lose(tx, ref, attempt)
            tx.claim(ref, of=["ready", "running"])
        return tx.effects

    def wait_on(self, ref: StepRef, attempt: int) -> tuple[StepClaim, Deadline] | None:
        """Take over the lease of a step whose worker is gone and whose vectors are on their way; its attempt goes on.

        Returns:
            The claim, and when the vectors must have come; None if the lease was renewed, or the attempt is over.
        """
        with self._transactions.on(ref.run_id, skip_locked=True) as tx:
            if tx is None:
                return None
            found = tx.take_lease(ref, attempt)
            tx.effects.applied = False  # only the step's lease has changed: the run's row and its followers have not
            if found is None:
                return None
            claim, age = found
            step = tx.definition.steps[ref.step_id]
        return claim, deadline_of(claim, step, waits=step.start_timeout - age)

    def never_started(self, ref: StepRef, attempt: int) -> Effects:
        """Fail a step that has waited for its start for too long, in a queue or for a worker."""
        with self._transactions.on(ref.run_id, skip_locked=True) as tx:
            wait = steps.late_start(tx, ref, attempt) if tx is not None and tx.run.may_start_steps else None
            if tx is None or wait is None or not step_transitions.never_started(tx, ref, attempt, wait):
                return unchanged(tx)
        self._transactions.report_wait(wait, "start_timed_out", ref, attempt, tx.run.trace)
        return tx.effects

    def wake(self, ref: StepRef, attempt: int) -> Effects:
        """End a wait that is due: a retry begins, a duration is over, a signal, or a sub-run is late."""
        with self._transactions.on(ref.run_id, skip_locked=True) as tx:
            wait = steps.due_wait(tx, ref, attempt) if tx is not None and tx.run.may_start_steps else None
            if tx is None or wait is None:
                return unchanged(tx)
            if wait.is_retry:
                tx.claim(ref, of=["waiting"])
            elif wait.child is not None:
                _time_out_sub_run(tx, ref, attempt, wait.child)
            elif wait.signal is not None:
                error = DeadlineExceeded(f"the signal {wait.signal!r} did not come in time")
                step_transitions.fail(tx, ref, attempt, error)
            else:
                scheduling.succeed(tx, ref, attempt, {})
        return tx.effects


def _time_out_sub_run(tx: RunTransaction, ref: StepRef, attempt: int, child: UUID) -> None:
    timeout = tx.definition.steps[ref.step_id].timeout
    tx.effects.orphans.append(child)
    line = concurrency_keys.place_of(tx.cursor, child)
    held = "" if line is None else f"; it was held by the concurrency key {line.concurrency_key!r}"
    error = StepTimedOut(f"the sub-run did not end within {timeout:g} s{held}")
    step_transitions.retry_or_fail(tx, ref, attempt, error)


class Sweeper:
    """Background threads that recover lost work every `interval` seconds, and renew this worker's leases.

    Args:
        transactions: Opens transactions.
        transitions: Transitions of steps.
        engine: Executes what is recovered.
        answer: Stores the results of a run's tasks.
        may_have_lost: Returns True once after the broker may have lost data.
        accepted: Looks after accepted tasks.
        guard: Ends the calls of a worker that is cut off.
        interval: Seconds between two sweeps.
    """

    def __init__(
        self,
        *,
        transactions: RunTransactions,
        transitions: StepTransitions,
        engine: Engine,
        answer: Callable[[EndedRun], None],
        may_have_lost: Callable[[], bool],
        accepted: Callable[[], None],
        guard: LeaseGuard,
        interval: float,
    ) -> None:
        self._transactions = transactions
        self._transitions = transitions
        self._recovery = StepRecovery(transactions)
        self._commands = RunCommands(transactions)
        self._engine = engine
        self._answer = answer
        self._may_have_lost = may_have_lost
        self._accepted = accepted
        self._guard = guard
        self._lease = lease = transactions.lease
        self._writable_since: float | None = None
        self._last_key = ""
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._every, args=(seconds, act), name=name, daemon=True)
            for name, seconds, act in (
                ("sweeper", interval, self.sweep),
                ("leases", lease / 6, self.renew),
                ("lease-guard", lease / 40, guard.guard),
                ("witness", lease / 12, guard.ask),
            )
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=self._lease)

    def sweep(self) -> None:
        """Look for everything once."""
        engine, commands = self._engine, self._commands
        for claim in engine.texts.lost(engine.in_flight, everything=self._may_have_lost()):
            engine.resend(claim)
        self._each(lost_work.late_runs, functools.partial(self._follow, commands.time_out))
        self._time_out_steps()
        engine.restore_outputs()
        self._each(lost_work.late_in_queue, self._never_started)
        if not engine.room:
            self._each(lost_work.late_and_ready, self._never_started)
        else:
            self._steps(lost_work.unstarted_steps, self._recovery.take_over)
            self._guarded(self._take_over_abandoned)
            self._steps(lost_work.due_steps, self._recovery.wake)
            self._release_keys()
            engine.serve_queues()
        self._each(lost_work.unanswered_runs, self._answer)
        self._each(lost_work.unreported_sub_runs, lambda found: engine.report(*found))
        self._each(lost_work.orphaned_runs, functools.partial(self._follow, commands.cancel_orphan))
        self._guarded(self._accepted)

    def _take_over_abandoned(self) -> None:
        if self._leases_are_settled():
            for ref, attempt in self._engine.texts.on_the_way(self._read(lost_work.abandoned_steps)):
                self._guarded(self._wait_on, ref, attempt)
            self._steps(lost_work.abandoned_steps, self._recovery.take_over)
            self._engine.admission.release_expired()

    def _wait_on(self, ref: StepRef, attempt: int) -> None:
        found = self._recovery.wait_on(ref, attempt)
        if found is not None:
            self._engine.await_vectors(*found)

    def renew(self) -> None:
        """Extend the leases of this worker's claims; cancel the execution of steps that it no longer holds."""
        in_flight, began = self._engine.in_flight, self._guard.tries()
        claims = in_flight.claims()
        with self._transactions.database.cursor() as cursor:
            if claims:
                lost = lost_work.renew_leases(cursor, claims, owner=self._transactions.owner, lease=self._lease)
            else:
                lost = []
                lost_work.write_nothing_new(cursor)
        self._guard.succeeded(began, wrote=not claims or len(lost) < len(claims))
        in_flight.renewed(claims, began)
        in_flight.drop(lost)
        self._engine.admission.renew()

    def _leases_are_settled(self) -> bool:
        """Return True once PostgreSQL has taken changes for so long that live workers have renewed their leases.

        An outage, a full disk or a standby outlasts leases, and their owners are alive: they go first when it is over,
        since their outputs may have cost money.
        """
        if self._writable_since is None:
            began = time.monotonic()
            with self._transactions.database.cursor() as cursor:
                lost_work.write_nothing_new(cursor)
            self._guard.proved(began)
            self._writable_since = time.monotonic()
        return time.monotonic() - self._writable_since > self._lease / 2

    def _steps(
        self, find: Callable[[Cursor], list[tuple[StepRef, int]]], transition: Callable[[StepRef, int], Effects]
    ) -> None:
        for ref, attempt in self._read(find):
            self._guarded(self._follow, transition, ref, attempt)
            if not self._engine.room:
                return

    def _release_keys(self) -> None:
        """Start runs in line that nobody has started; each sweep looks at the keys behind those of the one before."""
        with self._transactions.database.cursor() as cursor:
            concurrency_keys.sort_in(cursor)
            found = concurrency_keys.keys_in_line(cursor, after=self._last_key)
        self._last_key = found[-1][0] if len(found) == concurrency_keys.MOST_KEYS else ""
        for key, may_start in found:
            if may_start:
                self._guarded(self._engine.release, key)

    def _never_started(self, found: tuple[StepRef, int]) -> None:
        self._follow(self._recovery.never_started, *found)

    def _time_out_steps(self) -> None:
        for claim in self._engine.in_flight.expired():
            self._engine.in_flight.drop([claim])
            self._guarded(self._follow, self._transitions.time_out, claim.ref, claim.attempt)

    def _follow(self, transition: Callable[..., Effects], *arguments: Any) -> None:
        self._engine.follow(transition(*arguments))

    def _each(self, find: Callable[[Cursor], list[T]], act: Callable[[T], None]) -> None:
        for found in self._read(find):
            self._guarded(act, found)

    def _read(self, find: Callable[[Cursor], list[T]]) -> list[T]:
        with self._transactions.database.cursor() as cursor:
            return find(cursor)

    def _guarded(self, act: Callable[..., None], *arguments: Any) -> None:
        """Log errors, so that one broken run or step does not keep the sweep from the others.

        Raises:
            StoreUnavailable: PostgreSQL does not answer, or has no room: the others would have to wait for it, too.
        """
        try:
            act(*arguments)
        except CitadelError as error:
            if type(error) in (StoreUnavailable, StoreBusy):
                raise
            if isinstance(error, StoreFull | StoreMisconfigured):
                self._writable_since = None
            log.info("sweep_step_refused", error=error.code)
        except Exception:
            log.exception("sweep_step_crashed")

    def _every(self, seconds: float, act: Callable[[], None]) -> None:
        while not self._stop.wait(seconds * random.uniform(0.8, 1.2)):  # noqa: S311  (only spreads the workers)
            began = time.monotonic()
            try:
                act()
            except StoreUnavailable as error:
                self._writable_since = None
                log.warning("sweep_failed", error=error.message)
            except Exception:
                log.exception("sweep_crashed")
            if time.monotonic() - began > self._lease:
                log.warning("sweep_slow", seconds=round(time.monotonic() - began, 1))
