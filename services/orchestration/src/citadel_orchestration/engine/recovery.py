"""Recovery without a leader: every worker looks for lost work, and takes what no other worker takes.

Lost is what lies between two processes: a step that was committed and never begun, a step whose worker is gone, a
retry or a wait that is due, a run past its deadline, a run that ended without its result stored.
"""

import functools
import random
import threading
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import structlog

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
from citadel_common.stores.redis import ERRORS
from citadel_orchestration.db import concurrency_keys, lost_work, steps
from citadel_orchestration.db.models import Effects, EndedRun, StepRef
from citadel_orchestration.db.transaction import RunTransaction
from citadel_orchestration.engine import scheduling, step_transitions
from citadel_orchestration.engine.engine import Engine
from citadel_orchestration.engine.run_commands import RunCommands
from citadel_orchestration.engine.step_transitions import StepTransitions
from citadel_orchestration.engine.transactions import RunTransactions, unchanged

if TYPE_CHECKING:
    from redis import Redis

T = TypeVar("T")
log = structlog.get_logger(__name__)
MOST_DEATHS = 5
"""Workers that may die with a step before it fails."""
EPOCH_KEY = "citadel:broker:epoch"


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


class FlushDetector:
    """Notices that a Redis was emptied, by a key that is missing then: what was sent before is lost.

    Args:
        client: A client of that Redis.
    """

    def __init__(self, client: "Redis") -> None:
        self._client = client
        self._seen: bytes | None = None

    def __call__(self) -> bool:
        """Return True if Redis was emptied since the last call; False while it does not answer."""
        try:
            self._client.set(EPOCH_KEY, uuid.uuid4().hex, nx=True)
            epoch: bytes | None = self._client.get(EPOCH_KEY)  # type: ignore[assignment]  # the client is not an async one
        except ERRORS:
            return False
        before, self._seen = self._seen, epoch
        return before is not None and before != epoch


class Sweeper:
    """Background threads that recover lost work every `interval` seconds, and renew this worker's leases.

    Args:
        transactions: Opens transactions.
        transitions: Transitions of steps.
        engine: Executes what is recovered.
        answer: Stores the results of a run's tasks.
        was_flushed: Returns True once after the broker was emptied.
        accepted: Looks after accepted tasks.
        interval: Seconds between two sweeps.
    """

    def __init__(
        self,
        *,
        transactions: RunTransactions,
        transitions: StepTransitions,
        engine: Engine,
        answer: Callable[[EndedRun], None],
        was_flushed: Callable[[], bool],
        accepted: Callable[[], None],
        interval: float,
    ) -> None:
        self._transactions = transactions
        self._transitions = transitions
        self._recovery = StepRecovery(transactions)
        self._commands = RunCommands(transactions)
        self._engine = engine
        self._answer = answer
        self._was_flushed = was_flushed
        self._accepted = accepted
        self._lease = lease = transactions.lease
        self._writable_since: float | None = None
        self._last_key = ""
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._every, args=(interval, self.sweep), name="sweeper", daemon=True),
            threading.Thread(target=self._every, args=(lease / 4, self.renew), name="leases", daemon=True),
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
        for claim in engine.in_flight.to_resend(everything=self._was_flushed()):
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
            self._steps(lost_work.abandoned_steps, self._recovery.take_over)
            self._engine.admission.release_expired()

    def renew(self) -> None:
        """Extend the leases of this worker's claims; cancel the execution of steps that it no longer holds."""
        claims = self._engine.in_flight.claims()
        if claims:
            with self._transactions.database.cursor() as cursor:
                lost = lost_work.renew_leases(cursor, claims, owner=self._transactions.owner, lease=self._lease)
            self._engine.in_flight.drop(lost)
        self._engine.admission.renew()

    def _leases_are_settled(self) -> bool:
        """Return True once PostgreSQL has taken changes for so long that live workers have renewed their leases.

        An outage, a full disk or a standby outlasts leases, and their owners are alive: they go first when it is over,
        since their outputs may have cost money.
        """
        if self._writable_since is None:
            with self._transactions.database.cursor() as cursor:
                lost_work.write_nothing_new(cursor)
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
