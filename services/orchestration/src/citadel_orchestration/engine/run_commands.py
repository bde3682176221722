"""Commands on whole runs: submit, cancel, pause, resume, signal, retry, time out, release."""

from typing import Any
from uuid import UUID

import orjson

from citadel_common.errors import Conflict, NotFound, RunTimedOut
from citadel_orchestration.db import admission, runs, steps
from citadel_orchestration.db.models import Effects, NewRun
from citadel_orchestration.db.transaction import RunTransaction
from citadel_orchestration.engine import scheduling
from citadel_orchestration.engine.retrying import reset
from citadel_orchestration.engine.transactions import RunTransactions, unchanged


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
        """Start no further step; running steps end and are recorded.

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
        return tx.effects

    def resume(self, run_id: UUID) -> Effects:
        """Go on with a paused run.

        Raises:
            NotFound: There is no such run.
            Conflict: It has ended.
        """
        with self._transactions.on(run_id) as found:
            tx = _active(found, run_id)
            if tx.run.status != "paused":
                return unchanged(tx)
            tx.run.status = "queued" if steps.none_started(tx) else "running"
            tx.event("run_resumed")
            if tx.run.status == "running" or _has_room(tx):
                scheduling.start_all(tx)
        return tx.effects

    def signal(self, run_id: UUID, name: str, payload: Any) -> Effects:
        """Deliver a signal; one for which no step waits yet is kept.

        Raises:
            NotFound: There is no such run.
            Conflict: It has ended.
        """
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

    def release(self, key: str) -> list[Effects]:
        """Start runs that waited for others of their concurrency key to end, one transaction each."""
        with self._transactions.database.cursor() as cursor:
            held = runs.held_by_key(cursor, key)
        return [self._release(key, run_id, limit) for run_id, limit in held]

    def _release(self, key: str, run_id: UUID, limit: int) -> Effects:
        with self._transactions.on(run_id) as tx:
            if tx is None or tx.run.status != "queued" or runs.room_of_key(tx.cursor, key, limit) <= 0:
                return unchanged(tx)
            scheduling.start_all(tx)
        return tx.effects


def restart(tx: RunTransaction, deadline: float | None) -> None:
    """Run what an ended run left undone, within `deadline` seconds from now.

    Raises:
        Conflict: Its concurrency key has no room.
    """
    if not _has_room(tx):
        raise Conflict("as many other runs of its concurrency key are active as may be; retry it later")
    reset(tx, deadline)
    tx.event("run_retried")
    scheduling.start_all(tx)


def _active(found: RunTransaction | None, run_id: UUID) -> RunTransaction:
    if found is None:
        raise NotFound(f"there is no run {run_id}")
    if found.run.is_finished:
        raise Conflict(f"the run is {found.run.status}")
    return found


def _has_room(tx: RunTransaction) -> bool:
    key, limit = tx.run.concurrency_key, tx.run.concurrency_limit
    return key is None or limit is None or runs.room_of_key(tx.cursor, key, limit) > 0
