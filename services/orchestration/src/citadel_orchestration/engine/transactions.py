"""Transactions on runs, and the report of what ended in them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from citadel_common.stores.postgres import Cursor, Database
from citadel_common.telemetry import NULL_METRICS, Metrics, names
from citadel_orchestration.db.models import Effects, StepRef, Wait
from citadel_orchestration.db.notifications import RunNotifications
from citadel_orchestration.db.transaction import MAX_EVENTS, RunTransaction, lock_run
from citadel_orchestration.definition.sizes import DEFAULT_RUN_LIMITS, RunLimits
from citadel_orchestration.engine import traces
from citadel_orchestration.engine.submission import Definitions


@dataclass(frozen=True, kw_only=True)
class RunTransactions:
    """Opens transactions; thread-safe.

    Attributes:
        database: Of the runs.
        definitions: Parsed definitions by run.
        owner: Name under which steps are leased; None for a process that executes none.
        lease: Seconds a lease lasts without renewal.
        metrics: Counts attempts and runs that end.
        limits: Limits of what runs make and read.
        max_events: Events of one run.
        notifications: Wake the followers of runs that have changed; None where nobody follows runs.
    """

    database: Database
    definitions: Definitions
    owner: str | None
    lease: float
    metrics: Metrics = NULL_METRICS
    limits: RunLimits = DEFAULT_RUN_LIMITS
    max_events: int = MAX_EVENTS
    notifications: RunNotifications | None = None

    @property
    def republish(self) -> float:
        """Seconds until a ready step that nobody has claimed is taken to be lost."""
        return self.lease / 3

    @contextmanager
    def on(self, run_id: UUID, *, skip_locked: bool = False) -> Iterator[RunTransaction | None]:
        """Lock a run for the block, then save it; effects that are not `applied` save nothing.

        Args:
            run_id: The run.
            skip_locked: Yield None for a run that another transaction holds, instead of waiting for it: recovery goes
                on with the next one, since the other worker is already at it.

        Yields:
            None if there is no such run.

        Raises:
            StoreUnavailable: PostgreSQL does not answer; the transaction may or may not be committed.
        """
        began = time.monotonic()
        with self.database.cursor() as cursor:
            tx = self.lock(cursor, run_id, skip_locked=skip_locked)
            if tx is not None:
                tx.began = began
            yield tx
            if tx is not None and tx.effects.applied:
                tx.save()
        if tx is not None:
            self.report(tx.effects, tx.run.trace)
            if tx.effects.applied:
                self.changed(run_id)

    def lock(self, cursor: Cursor, run_id: UUID, *, skip_locked: bool = False) -> RunTransaction | None:
        """Lock a run until the cursor's transaction ends; None where there is none, or it is to be skipped."""
        run = lock_run(cursor, run_id, skip_locked=skip_locked)
        if run is None:
            return None
        return RunTransaction(
            cursor,
            run,
            owner=self.owner,
            lease=self.lease,
            definition_of=self.definitions.get,
            limits=self.limits,
            max_events=self.max_events,
        )

    def report_wait(self, wait: Wait, outcome: str, ref: StepRef, attempt: int, trace: traces.Trace | None) -> None:
        """Count the wait of a step that is over, and make its span; called after the commit."""
        self.metrics.observe(names.STEP_WAIT_SECONDS, wait.seconds, reason=wait.waiting_for, outcome=outcome)
        traces.report_wait(wait, outcome, ref, attempt, trace)

    def changed(self, run_id: UUID) -> None:
        """Wake the followers of a run; called after the commit."""
        if self.notifications is not None:
            self.notifications.changed(run_id)

    def report(self, effects: Effects, trace: traces.Trace | None) -> None:
        """Count what has ended, and make its spans; called after the commit."""
        for attempt in effects.attempts:
            traces.report_attempt(attempt, trace, self.metrics)
        if effects.ended is not None:
            traces.report_run(effects.ended, self.metrics)


def unchanged(tx: RunTransaction | None) -> Effects:
    """Return the effects of a transition that changes nothing, and let `tx` save nothing."""
    return Effects(applied=False) if tx is None else tx.discard()
