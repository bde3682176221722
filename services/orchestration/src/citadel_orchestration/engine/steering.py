"""Transitions of a whole run: cancel, pause, resume, signal, retry, its deadline, its place among runs of a key."""

from typing import Any
from uuid import UUID

import orjson

from citadel_common.errors import (
    Conflict,
    NotFound,
)
from citadel_common.stores.postgres import one
from citadel_orchestration.db import runs
from citadel_orchestration.db.models import Effects, StepRef
from citadel_orchestration.db.transaction import RunTransaction
from citadel_orchestration.engine.following import Following, has_data, untouched
from citadel_orchestration.engine.retrying import reset


class Steering(Following):
    """Changes that somebody asks for, or that time brings."""

    def cancel(self, run_id: UUID) -> Effects:
        """Ends a run; its queued steps never start.

        Raises:
            NotFound: There is no such run.
            Conflict: It has ended.
        """
        with self._on(run_id) as found:
            tx = _active(found, run_id)
            tx.end("cancelled")
        return tx.effects

    def cancel_orphan(self, run_id: UUID) -> Effects:
        """Ends a sub-run for which no step waits any more; one that is awaited again goes on."""
        with self._on(run_id) as tx:
            if tx is None or tx.run.is_finished or _is_awaited(tx):
                return untouched(tx)
            tx.end("cancelled")
        return tx.effects

    def time_out(self, run_id: UUID) -> Effects:
        """Ends a run that is past its deadline."""
        with self._on(run_id, skip_locked=True) as tx:
            if tx is None or tx.run.is_finished or not _is_late(tx):
                return untouched(tx)
            tx.end("timed_out", error={"code": "run_timed_out", "message": "The run did not finish in time."})
        return tx.effects

    def pause(self, run_id: UUID) -> Effects:
        """Lets no further step start; what runs is finished and recorded.

        Raises:
            NotFound: There is no such run.
            Conflict: It has ended.
        """
        with self._on(run_id) as found:
            tx = _active(found, run_id)
            if tx.run.status == "paused":
                return untouched(tx)
            tx.run.status = "paused"
            tx.event("run_paused")
        return tx.effects

    def resume(self, run_id: UUID) -> Effects:
        """Goes on with a paused run.

        Raises:
            NotFound: There is no such run.
            Conflict: It has ended.
        """
        with self._on(run_id) as found:
            tx = _active(found, run_id)
            if tx.run.status != "paused":
                return untouched(tx)
            tx.run.status = "queued" if _is_untouched(tx) else "running"
            tx.event("run_resumed")
            if tx.run.status == "running" or not _has_no_room(tx):
                self._schedule(tx)
                self._end_if_done(tx)
        return tx.effects

    def signal(self, run_id: UUID, name: str, payload: Any) -> Effects:
        """Delivers a signal; one that nobody waits for yet is kept.

        Raises:
            NotFound: There is no such run.
            Conflict: It has ended.
        """
        body = orjson.dumps(payload)
        with self._on(run_id) as found:
            tx = _active(found, run_id)
            tx.event("signal", name=name)
            tx.cursor.execute(
                "SELECT step_id, item, attempt FROM steps WHERE run_id = %s AND signal = %s AND status = 'waiting'"
                " ORDER BY position, item LIMIT 1",
                [run_id, name],
            )
            row = tx.cursor.fetchone()
            tx.cursor.execute(
                "INSERT INTO signals (run_id, seq, name, payload, consumed) SELECT %s, coalesce(max(seq), 0) + 1,"
                " %s, %s, %s FROM signals WHERE run_id = %s",
                [run_id, name, body, row is not None, run_id],
            )
            if row is not None:
                ref = StepRef(run_id=run_id, step_id=row[0], item=row[1])
                tx.finish(ref, row[2], "succeeded", output=body, has_data=has_data(payload))
                self._after(tx, ref, "succeeded", None)
        return tx.effects

    def retry(self, run_id: UUID, *, deadline: float | None) -> Effects:
        """Runs a run that ended badly again from where it failed; what succeeded is not repeated.

        Raises:
            NotFound: There is no such run.
            Conflict: It has not ended, or has succeeded.
        """
        with self._on(run_id) as tx:
            if tx is None:
                raise NotFound(f"there is no run {run_id}")
            if not tx.run.is_finished or tx.run.status == "succeeded":
                raise Conflict(
                    f"the run is {tx.run.status}; only one that failed, timed out or was cancelled is retried"
                )
            self._again(tx, deadline)
        return tx.effects

    def _again(self, tx: RunTransaction, deadline: float | None) -> None:
        """Runs what a run that has ended left undone.

        Raises:
            Conflict: Its concurrency key has no room.
        """
        if _has_no_room(tx):
            raise Conflict("as many other runs of its concurrency key are active as may be; retry it later")
        reset(tx, self._definition(tx), deadline)
        tx.event("run_retried")
        self._schedule(tx)
        self._end_if_done(tx)

    def release(self, key: str) -> list[Effects]:
        """Starts runs that waited for others of their concurrency key to end."""
        with self._database.cursor() as cursor:
            cursor.execute(
                "SELECT run_id, concurrency_limit FROM runs WHERE concurrency_key = %s AND status = 'queued'"
                " AND NOT EXISTS (SELECT 1 FROM steps WHERE steps.run_id = runs.run_id AND status <> 'pending')"
                " ORDER BY created_at LIMIT 100",
                [key],
            )
            waiting = cursor.fetchall()
        return [self._release(key, run_id, limit) for run_id, limit in waiting]

    def _release(self, key: str, run_id: UUID, limit: int) -> Effects:
        with self._on(run_id) as tx:
            if tx is None or tx.run.status != "queued" or runs.room_of_key(tx.cursor, key, limit) <= 0:
                return untouched(tx)
            self._schedule(tx)
        return tx.effects


def _active(found: RunTransaction | None, run_id: UUID) -> RunTransaction:
    if found is None:
        raise NotFound(f"there is no run {run_id}")
    if found.run.is_finished:
        raise Conflict(f"the run is {found.run.status}")
    return found


def _is_awaited(tx: RunTransaction) -> bool:
    parent = tx.run.parent
    if parent is None:
        return True
    ref = parent.ref
    tx.cursor.execute(
        "SELECT EXISTS (SELECT 1 FROM steps WHERE run_id = %s AND step_id = %s AND item = %s AND attempt = %s"
        " AND status = 'waiting')",
        [ref.run_id, ref.step_id, ref.item, parent.attempt],
    )
    return bool(one(tx.cursor)[0])


def _is_late(tx: RunTransaction) -> bool:
    tx.cursor.execute("SELECT deadline_at < now() FROM runs WHERE run_id = %s", [tx.run.run_id])
    return bool(one(tx.cursor)[0])


def _is_untouched(tx: RunTransaction) -> bool:
    """Whether none of its steps was ever ready: it was held back for the limit of its concurrency key."""
    tx.cursor.execute(
        "SELECT NOT EXISTS (SELECT 1 FROM steps WHERE run_id = %s AND status <> 'pending')", [tx.run.run_id]
    )
    return bool(one(tx.cursor)[0])


def _has_no_room(tx: RunTransaction) -> bool:
    key, limit = tx.run.concurrency_key, tx.run.concurrency_limit
    return key is not None and limit is not None and runs.room_of_key(tx.cursor, key, limit) <= 0
