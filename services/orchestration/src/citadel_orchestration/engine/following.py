"""What follows the end of a step: the steps and items that may begin, and the end of the run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from citadel_common.errors import CitadelError
from citadel_common.stores.postgres import Database, one
from citadel_common.telemetry import NULL_METRICS, Metrics
from citadel_orchestration.db.models import FINAL_STEP_STATES, NO_ITEM, Effects, StepRef
from citadel_orchestration.db.transaction import RunTransaction, run_transaction
from citadel_orchestration.definition.definition import Definition, Step
from citadel_orchestration.engine import traces
from citadel_orchestration.engine.definitions import Definitions

NOTHING = Effects(applied=False)
Finish = Callable[[RunTransaction, Definition], tuple[bytes | None, CitadelError | None]]
"""Gives a run's output at its end, or the error that makes it fail."""


class Following:
    """What all transitions share; thread-safe.

    Args:
        database: The record.
        definitions: Parsed definitions by run.
        finish: Evaluates a run's output.
        owner: Name under which steps are leased; None for a caller that executes none.
        lease: Seconds a lease lasts without renewal, and until a step whose message was lost is found.
        max_output_bytes: Bytes in the output of one step.
        metrics: Counts what ends.
    """

    def __init__(
        self,
        database: Database,
        definitions: Definitions,
        finish: Finish,
        *,
        owner: str | None,
        lease: float,
        max_output_bytes: int,
        metrics: Metrics = NULL_METRICS,
    ) -> None:
        self._metrics = metrics
        self._database = database
        self._definitions = definitions
        self._finish = finish
        self._owner = owner
        self.lease = lease
        self.republish = lease / 3
        self._max_output_bytes = max_output_bytes

    @contextmanager
    def _on(self, run_id: UUID, *, skip_locked: bool = False) -> Iterator[RunTransaction | None]:
        with run_transaction(
            self._database, run_id, owner=self._owner, lease=self.lease, skip_locked=skip_locked
        ) as tx:
            yield tx
            types = self._types_of_ended(tx) if tx is not None else []
        if tx is not None:
            self._tell(tx, types)

    def _types_of_ended(self, tx: RunTransaction) -> list[str]:
        """The types of the steps of which an attempt has ended."""
        if not tx.effects.attempts:
            return []
        steps = self._definition(tx).steps
        return [steps[attempt.ref.step_id].type.name for attempt in tx.effects.attempts]

    def _tell(self, tx: RunTransaction, types: list[str]) -> None:
        """Counts, and makes the spans of, what has ended, after the commit."""
        for attempt, kind in zip(tx.effects.attempts, types, strict=True):
            traces.tell_attempt(attempt, tx.run.trace, kind, self._metrics)
        if tx.effects.ended is not None:
            traces.tell_run(tx.effects.ended, self._metrics)

    def _definition(self, tx: RunTransaction) -> Definition:
        return self._definitions.get(tx.run.run_id, tx.cursor)

    def _after(self, tx: RunTransaction, ref: StepRef, status: str, error: CitadelError | None) -> None:
        """What follows the end of a step or of an item."""
        step = self._definition(tx).steps[ref.step_id]
        if ref.item != NO_ITEM:
            self._after_item(tx, step, status, error)
            return
        tx.run.unfinished -= 1
        if status == "failed" and step.on_error == "fail":
            tx.end("failed", error=_error_of(step, error))
            return
        if tx.run.may_start_steps:
            self._start_dependents(tx, step)
            self._end_if_done(tx)

    def _start_dependents(self, tx: RunTransaction, step: Step) -> None:
        steps = self._definition(tx).steps
        if not step.dependents:
            return
        others = {name for dependent in step.dependents for name in steps[dependent].depends_on} - {step.step_id}
        known = {step.step_id: "succeeded"} | (tx.statuses(others) if others else {})
        for dependent in step.dependents:
            if all(known[name] in FINAL_STEP_STATES for name in steps[dependent].depends_on):
                tx.claim(StepRef(run_id=tx.run.run_id, step_id=dependent), of=["pending"])

    def _after_item(self, tx: RunTransaction, step: Step, status: str, error: CitadelError | None) -> None:
        """Counts it on the step, and starts the next item or ends the step."""
        parent = StepRef(run_id=tx.run.run_id, step_id=step.step_id)
        tx.cursor.execute(
            "UPDATE steps SET items_done = items_done + 1, items_failed = items_failed + %s"
            " WHERE run_id = %s AND step_id = %s AND item = -1 AND status = 'waiting'"
            " RETURNING attempt, items_total, items_done",
            [int(status == "failed"), parent.run_id, parent.step_id],
        )
        row = tx.cursor.fetchone()
        if row is None:
            return
        attempt, total, done = row
        if status == "failed" and step.on_error == "fail":
            _cancel_items(tx, step.step_id)
            tx.finish(parent, attempt, "failed", error=error)
            self._after(tx, parent, "failed", error)
        elif done == total:
            tx.finish(parent, attempt, "succeeded")
            self._after(tx, parent, "succeeded", None)
        elif tx.run.may_start_steps:
            self._start_items(tx, step.step_id, 1)

    def _start_items(self, tx: RunTransaction, step_id: str, count: int) -> None:
        tx.cursor.execute(
            "SELECT item FROM steps WHERE run_id = %s AND step_id = %s AND status = 'pending' AND item >= 0"
            " ORDER BY item LIMIT %s",
            [tx.run.run_id, step_id, count],
        )
        for (item,) in tx.cursor.fetchall():
            tx.claim(StepRef(run_id=tx.run.run_id, step_id=step_id, item=item), of=["pending"])

    def _schedule(self, tx: RunTransaction) -> None:
        """Starts all that may start: after a pause, a retry, or a wait for the concurrency key."""
        definition = self._definition(tx)
        known = tx.statuses(definition.steps)
        for step in definition.steps.values():
            if known[step.step_id] == "pending" and all(known[name] in FINAL_STEP_STATES for name in step.depends_on):
                tx.claim(StepRef(run_id=tx.run.run_id, step_id=step.step_id), of=["pending"])
            elif known[step.step_id] == "waiting" and step.for_each is not None:
                self._start_items(tx, step.step_id, step.for_each[1] - _running_items(tx, step.step_id))

    def _end_if_done(self, tx: RunTransaction) -> None:
        if tx.run.unfinished > 0 or tx.run.is_finished:
            return
        output, error = self._finish(tx, self._definition(tx))
        if error is None:
            tx.end("succeeded", output=output)
        else:
            tx.end("failed", error=error.data.model_dump())


def untouched(tx: RunTransaction | None) -> Effects:
    """The effects of a transition that changes nothing."""
    if tx is not None:
        tx.effects = NOTHING
    return NOTHING


def has_data(output: Any) -> bool:
    """Whether an output has keys that go into the context."""
    return isinstance(output, dict) and isinstance(output.get("data"), dict)


def _cancel_items(tx: RunTransaction, step_id: str) -> None:
    tx.cancel_steps("step_id = %s AND item >= 0 AND status <> ALL(%s)", step_id, list(FINAL_STEP_STATES))


def _running_items(tx: RunTransaction, step_id: str) -> int:
    tx.cursor.execute(
        "SELECT count(*) FROM steps WHERE run_id = %s AND step_id = %s AND item >= 0"
        " AND status IN ('ready', 'running', 'waiting')",
        [tx.run.run_id, step_id],
    )
    return int(one(tx.cursor)[0])


def _error_of(step: Step, error: CitadelError | None) -> dict[str, Any]:
    return (error or CitadelError()).data.model_dump() | {"step_id": step.step_id}
