"""Scheduling after the end of a step: the steps and items that may begin, and the end of the run."""

from typing import Any

import orjson

from citadel_common.errors import CitadelError
from citadel_orchestration.db import steps
from citadel_orchestration.db.models import FINAL_STEP_STATES, NO_ITEM, StepRef
from citadel_orchestration.db.transaction import RunTransaction
from citadel_orchestration.definition.definition import Step
from citadel_orchestration.engine.scope import output_at_end


def succeed(tx: RunTransaction, ref: StepRef, attempt: int, output: Any) -> None:
    """End a step with an output, and schedule what follows."""
    tx.finish(ref, attempt, "succeeded", output=orjson.dumps(output), has_data=has_data(output))
    step_ended(tx, ref, "succeeded")


def step_ended(tx: RunTransaction, ref: StepRef, status: str, error: CitadelError | None = None) -> None:
    """Schedule what follows the end of a step or an item."""
    step = tx.definition.steps[ref.step_id]
    if ref.item != NO_ITEM:
        _item_ended(tx, step, status, error)
        return
    tx.run.unfinished -= 1
    if status == "failed" and step.on_error == "fail":
        tx.end("failed", error=_run_error(step, error))
    elif tx.run.may_start_steps:
        _start_dependents(tx, step)
        end_if_done(tx)


def _start_dependents(tx: RunTransaction, step: Step) -> None:
    if not step.dependents:
        return
    definition = tx.definition.steps
    others = {name for dependent in step.dependents for name in definition[dependent].depends_on} - {step.step_id}
    known = {step.step_id: "succeeded"} | (tx.statuses(others) if others else {})
    for dependent in step.dependents:
        if all(known[name] in FINAL_STEP_STATES for name in definition[dependent].depends_on):
            tx.claim(StepRef(run_id=tx.run.run_id, step_id=dependent), of=["pending"])


def _item_ended(tx: RunTransaction, step: Step, status: str, error: CitadelError | None) -> None:
    """Count an item on its step, then start the next item or end the step."""
    counted = steps.count_item(tx, step.step_id, failed=status == "failed")
    if counted is None:
        return
    attempt, total, done = counted
    parent = StepRef(run_id=tx.run.run_id, step_id=step.step_id)
    if status == "failed" and step.on_error == "fail":
        tx.cancel_items(step.step_id)
        tx.finish(parent, attempt, "failed", error=error)
        step_ended(tx, parent, "failed", error)
    elif done == total:
        tx.finish(parent, attempt, "succeeded")
        step_ended(tx, parent, "succeeded")
    elif tx.run.may_start_steps:
        start_items(tx, step.step_id, 1)


def start_items(tx: RunTransaction, step_id: str, count: int) -> None:
    """Claim the next `count` items of a `for_each`."""
    for ref in steps.pending_items(tx, step_id, count):
        tx.claim(ref, of=["pending"])


def start_all(tx: RunTransaction) -> None:
    """Claim every step and item that may begin, and end a run in which none is left.

    For a run whose steps stood still: after a pause, before a retry, or for its concurrency key.
    """
    known = tx.statuses(tx.definition.steps)
    for step in tx.definition.steps.values():
        if known[step.step_id] == "pending" and all(known[name] in FINAL_STEP_STATES for name in step.depends_on):
            tx.claim(StepRef(run_id=tx.run.run_id, step_id=step.step_id), of=["pending"])
        elif known[step.step_id] == "waiting" and step.for_each is not None:
            start_items(tx, step.step_id, step.for_each.max_parallel - steps.started_items(tx, step.step_id))
    end_if_done(tx)


def end_if_done(tx: RunTransaction) -> None:
    """End the run if no step is left: with its output, or with the error of the output's expressions."""
    if tx.run.unfinished > 0 or tx.run.is_finished:
        return
    output, error = output_at_end(tx, tx.definition)
    if error is None:
        tx.end("succeeded", output=output)
    else:
        tx.end("failed", error=error.data.model_dump())


def has_data(output: Any) -> bool:
    """Return True if an output has keys that go into the context."""
    return isinstance(output, dict) and isinstance(output.get("data"), dict)


def _run_error(step: Step, error: CitadelError | None) -> dict[str, Any]:
    return (error or CitadelError()).data.model_dump() | {"step_id": step.step_id}
