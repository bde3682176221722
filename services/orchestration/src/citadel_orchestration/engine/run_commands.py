"""Commands on whole runs: submit, cancel, pause, resume, signal, retry, time out, release."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import orjson

from citadel_common.errors import CitadelError, Conflict, NotFound, RunTimedOut, StoreUnavailable
from citadel_orchestration.db import admission, concurrency_keys, runs, steps
from citadel_orchestration.db.models import Effects, NewRun
from citadel_orchestration.db.transaction import RunTransaction
from citadel_orchestration.engine import scheduling
from citadel_orchestration.engine.retrying import reset
from citadel_orchestration.engine.transactions import RunTransactions, unchanged

MOST_RELEASED = 100
"""Runs in line that one call starts."""


class RunCommands:
    """Transitions of whole runs, by users' commands, deadlines and concurrency keys; thread-safe."""

    def __init__(self, transactions: RunTransactions) -> None:
        self._transactions = transactions

    @property
    def republish(self) -> float:
        """Seconds until a ready step that nobody has claimed is taken to be lost."""
        return self._transactions.republish

    def submit(self, run: NewRun) -> runs.Submitted:
        """Record a run; submitting it twice records it once.

        Raises:
            Conflict: Its idempotency key was used for something else.
            StoreUnavailable: It may or may not have been recorded.
        """
        with self._transactions.database.cursor() as cursor:
            return runs.submit(cursor, run, republish=self._transactions.republish)

    def exists(self, run_id: UUID) -> bool:
        """Return whether a run is recorded."""
        with self._transactions.database.cursor() as cursor:
            return runs.exists(cursor, run_id)

    def cancel(self, run_id: UUID) -> Effects:
        """End a run; its steps that have not begun never will.

        Raises:
            NotFound: There is no such run.
            Conflict: It has ended.
        """
        with self._transactions.on(run_id) as found:
            tx = _active(found, run_id)
            tx.end("cancelled")
        return tx.effects

    def of_tasks(self, tasks: Mapping[UUID, str]) -> list[tuple[UUID, str]]:
        """Return the runs under way that tasks have begun; see `runs.of_tasks`."""
        with self._transactions.database.cursor() as cursor:
            return runs.of_tasks(cursor, tasks)

    def cancel_orphan(self, run_id: UUID) -> Effects:
        """End a sub-run for which no step waits any more; a sub-run that is awaited again goes on."""
        with self._transactions.on(run_id) as tx:
            if tx is None or tx.run.is_finished or steps.parent_waits(tx):
                return unchanged(tx)
            tx.end("cancelled")
        return tx.effects

    def cancel_children(self, run_id: UUID) -> list[Effects]:
        """Cancel the sub-runs of a run that ended, one transaction each."""
        with self._transactions.database.cursor() as cursor:
            children = runs.children_of(cursor, run_id)
        return [self.cancel_orphan(child) for child in children]

    def time_out(self, run_id: UUID) -> Effects:
        """End a run that is past its deadline."""
        with self._transactions.on(run_id, skip_locked=True) as tx:
            if tx is None or tx.run.is_finished or not runs.is_late(tx):
                return unchanged(tx)
            tx.end("timed_out", error=RunTimedOut().data.model_dump())
        return tx.effects

    def pause(self, run_id: UUID) -> Effects:
        """Start no further step; running steps end and are recorded. A run in line lets those behind it pass.

        Raises:
            NotFound: There is no such run.
            Conflict: It has ended.
        """
        with self._transactions.on(run_id) as found:
            tx = _active(found, run_id)
            if tx.run.status == "paused":
                return unchanged(tx)
            tx.run.status = "paused"
            admission.unqueue(tx)
            tx.event("run_paused")
            tx.effects.changed_line = tx.run.concurrency_key
        return tx.effects

    def resume(self, run_id: UUID) -> Effects:
        """Go on with a paused run; one that was in line goes back to its place.

        Raises:
            NotFound: There is no such run.
            Conflict: It has ended.
        """
        with self._transactions.on(run_id) as found:
            tx = _active(found, run_id)
            if tx.run.status != "paused":
                return unchanged(tx)
            held = concurrency_keys.is_held(tx)
            tx.run.status = "queued" if held else "running"
            tx.event("run_resumed")
            if held:
                tx.effects.changed_line = tx.run.concurrency_key
            else:
                scheduling.start_all(tx)
        return tx.effects

    def signal(self, run_id: UUID, name: str, payload: Any) -> Effects:
        """Deliver a signal; one for which no step waits yet is kept.

        Raises:
            NotFound: There is no such run.
            Conflict: It has ended.
            PayloadTooLarge: The payload, which is the output of a step, is over its limit.
        """
        self._transactions.limits.output.check(payload, "the signal's payload")
        with self._transactions.on(run_id) as found:
            tx = _active(found, run_id)
            tx.event("signal", name=name)
            waiting = steps.add_signal(tx, name, orjson.dumps(payload))
            if waiting is not None:
                scheduling.succeed(tx, *waiting, payload)
        return tx.effects

    def retry(self, run_id: UUID, *, deadline: float | None) -> Effects:
        """Run again what failed or was cancelled in an ended run; steps that succeeded are not repeated.

        Raises:
            NotFound: There is no such run.
            Conflict: It has not ended, or has succeeded, or its concurrency key has no room.
        """
        with self._transactions.on(run_id) as tx:
            if tx is None:
                raise NotFound(f"there is no run {run_id}")
            if not tx.run.is_finished or tx.run.status == "succeeded":
                raise Conflict(
                    f"the run is {tx.run.status}; only one that failed, timed out or was cancelled is retried"
                )
            restart(tx, deadline)
        return tx.effects

    def release(self, key: str, *, most: int = MOST_RELEASED) -> list[Effects]:
        """Start the runs in line for a concurrency key that may start now, at most so many, in their order.

        A head that another transaction holds ends it: whoever starts the head looks for the next one.
        """
        released: list[Effects] = []
        while len(released) < most and (head := self._next_in_line(key)) is not None:
            effects = self._admit(key, head)
            if effects is None:
                break
            if effects.applied:
                released.append(effects)
        return released

    def _next_in_line(self, key: str) -> UUID | None:
        with self._transactions.database.cursor() as cursor:
            return concurrency_keys.next_in_line(cursor, key)

    def _admit(self, key: str, run_id: UUID) -> Effects | None:
        """Start a run if it still heads the line; one that cannot start fails, or it would stop all behind it.

        Returns:
            None if another transaction holds the run.
        """
        with self._transactions.on(run_id, skip_locked=True) as tx:
            if tx is None:
                return None
            if concurrency_keys.next_in_line(tx.cursor, key) != run_id:
                return unchanged(tx)
            concurrency_keys.leave_line(tx)
            try:
                scheduling.start_all(tx)
            except StoreUnavailable:
                raise
            except CitadelError as error:
                tx.end("failed", error=error.data.model_dump())
        return tx.effects


def restart(tx: RunTransaction, deadline: float | None, *, may_wait: bool = False) -> None:
    """Run what an ended run left undone, within `deadline` seconds from now.

    Args:
        tx: The run.
        deadline: Seconds.
        may_wait: Whether the run goes to the end of the line if its concurrency key has no room.

    Raises:
        Conflict: Its concurrency key has no room, and it may not wait.
    """
    key, limit = tx.run.concurrency_key, tx.run.concurrency_limit
    full = key is not None and limit is not None and not concurrency_keys.has_room(tx.cursor, key, limit)
    if full and not may_wait:
        raise Conflict("as many other runs of its concurrency key are active as may be; retry it later")
    reset(tx, deadline)
    tx.event("run_retried")
    if full and key is not None:
        tx.run.status = "queued"
        concurrency_keys.hold(tx.cursor, key, tx.run.run_id)
    else:
        scheduling.start_all(tx)


def _active(found: RunTransaction | None, run_id: UUID) -> RunTransaction:
    if found is None:
        raise NotFound(f"there is no run {run_id}")
    if found.run.is_finished:
        raise Conflict(f"the run is {found.run.status}")
    return found
