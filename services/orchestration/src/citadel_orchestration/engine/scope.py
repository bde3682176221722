"""The scope of expressions: the context, the steps that ran, the item.

Only what the expressions of a step refer to is read from the database.
"""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

import orjson

from citadel_common.errors import CitadelError
from citadel_common.stores.postgres import Cursor
from citadel_orchestration.db import payloads
from citadel_orchestration.db.models import NO_ITEM, StepRef
from citadel_orchestration.db.transaction import RunTransaction
from citadel_orchestration.definition.definition import Definition
from citadel_orchestration.definition.template import References
from citadel_orchestration.engine.outputs import encoded


def reads_nothing(references: References, ref: StepRef) -> bool:
    """Return True if the references are evaluated without reading the database."""
    return not references.steps and not references.context and ref.item == NO_ITEM


def blank_scope(run_id: UUID, workflow_id: str) -> dict[str, Any]:
    """Return the scope of expressions for which nothing is read."""
    return {"run": {"id": str(run_id), "workflow_id": workflow_id}, "steps": {}, "context": {}}


def scope_of(cursor: Cursor, workflow_id: str, references: References, ref: StepRef) -> dict[str, Any]:
    """Return the scope of a step's expressions.

    Args:
        cursor: Reads the database.
        workflow_id: Workflow id of the run.
        references: What the expressions refer to.
        ref: The step; the scope of an item has `item` and `index`.
    """
    scope = blank_scope(ref.run_id, workflow_id)
    scope["steps"] = steps_of(cursor, ref.run_id, references.steps)
    if references.context:
        scope["context"] = context_of(cursor, ref.run_id, keys=references.context_keys)
    if ref.item != NO_ITEM:
        scope |= {"item": item_of(cursor, ref), "index": ref.item}
    return scope


def steps_of(cursor: Cursor, run_id: UUID, step_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return `status` and `output` of steps; the output of a `for_each` is the list of its items' outputs."""
    wanted = list(step_ids)
    if not wanted:
        return {}
    states = payloads.states_of(cursor, run_id, wanted)
    outputs = payloads.outputs_of(cursor, run_id, wanted)
    return {
        step_id: {"status": status, "output": _output(outputs.get(step_id, {}), total)}
        for step_id, status, total in states
    }


def _output(bodies: dict[int, bytes], items_total: int | None) -> Any:
    if items_total is None:
        return orjson.loads(bodies[NO_ITEM]) if NO_ITEM in bodies else None
    return [orjson.loads(bodies[item]) if item in bodies else None for item in range(items_total)]


def context_of(cursor: Cursor, run_id: UUID, *, keys: frozenset[str] | None = None) -> dict[str, Any]:
    """Return the context as it is now: as submitted, with each output under its step's id and its keys under `data`.

    Args:
        cursor: Reads the database.
        run_id: The run.
        keys: Ids of steps whose outputs are read; None for all. Outputs with `data` are always read.
    """
    ended = payloads.succeeded_steps(cursor, run_id)
    done = [step_id for step_id, _, has_data in ended if keys is None or step_id in keys or has_data]
    found = steps_of(cursor, run_id, done)
    return context_after(cursor, run_id, {step_id: found[step_id]["output"] for step_id in done})


def context_after(cursor: Cursor, run_id: UUID, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the context as submitted, changed by the outputs of steps in the order in which they succeeded."""
    context: dict[str, Any] = orjson.loads(payloads.context_of(cursor, run_id))
    for step_id, output in outputs.items():
        context[step_id] = output
        if isinstance(output, dict) and isinstance(output.get("data"), dict):
            context |= output["data"]
    return context


def item_of(cursor: Cursor, ref: StepRef) -> Any:
    """Return the item that a step is executed for."""
    body = payloads.input_of(cursor, ref)
    return None if body is None else orjson.loads(body)


def output_at_end(tx: RunTransaction, definition: Definition) -> tuple[bytes | None, CitadelError | None]:
    """Return a run's output when its last step has ended, or the error that makes the run fail.

    Without an `output` in the definition it is that of the last step.
    """
    try:
        return encoded(_value(tx, definition), "the run's output"), None
    except CitadelError as error:
        return None, error


def _value(tx: RunTransaction, definition: Definition) -> Any:
    last = next(reversed(definition.steps))
    run_id = tx.run.run_id
    if definition.output is None:
        return None if tx.run.kind == "batch" else steps_of(tx.cursor, run_id, [last])[last]["output"]
    ref = StepRef(run_id=run_id, step_id=last)
    return definition.output.evaluate(scope_of(tx.cursor, tx.run.workflow_id, definition.output.references, ref))
