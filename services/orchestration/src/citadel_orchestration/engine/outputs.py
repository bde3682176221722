"""A run's output, evaluated when its last step has ended."""

from typing import Any

import orjson

from citadel_common.errors import CitadelError
from citadel_orchestration.db.models import StepRef
from citadel_orchestration.db.transaction import RunTransaction
from citadel_orchestration.definition.definition import Definition
from citadel_orchestration.engine.scope import scope_of, steps_of


def output_at_end(tx: RunTransaction, definition: Definition) -> tuple[bytes | None, CitadelError | None]:
    """The output, or the error that makes the run fail; without an `output` it is the last step's."""
    try:
        return orjson.dumps(_value(tx, definition)), None
    except CitadelError as error:
        return None, error


def _value(tx: RunTransaction, definition: Definition) -> Any:
    last = next(reversed(definition.steps))
    run_id = tx.run.run_id
    if definition.output is None:
        return None if tx.run.kind == "batch" else steps_of(tx.cursor, run_id, [last])[last]["output"]
    ref = StepRef(run_id=run_id, step_id=last)
    return definition.output.evaluate(scope_of(tx.cursor, tx.run.workflow_id, definition.output.references, ref))
