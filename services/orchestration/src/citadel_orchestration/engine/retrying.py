"""The steps that a retry of a run repeats: those that failed the run or did not end, and none that succeeded.

A failure that the definition tolerates (`on_error: continue`) is repeated only if the run failed because an
expression could not use the failed step's missing output.
"""

from collections.abc import Mapping
from datetime import datetime

from citadel_common.errors import ExpressionFailed, InvalidInput
from citadel_orchestration.db import runs, steps
from citadel_orchestration.db.transaction import RunTransaction
from citadel_orchestration.definition.definition import Definition
from citadel_orchestration.definition.template import References
from citadel_orchestration.engine import traces

_EVALUATION = (ExpressionFailed.code, InvalidInput.code)
"""Errors of a step, or of the run's output, whose expressions could not use what they read."""


def reset(tx: RunTransaction, deadline: float | None) -> None:
    """Make an ended run active again, with a deadline in so many seconds; steps keep their sub-runs, to go on with."""
    tolerant = {step.step_id for step in tx.definition.steps.values() if step.on_error == "continue"}
    steps.reset(tx, _to_repeat(tx, tolerant), tolerant=tolerant)
    tx.run.unfinished = steps.unfinished(tx)
    _begin_trace(tx, runs.reopen(tx, deadline))


def _begin_trace(tx: RunTransaction, now: datetime) -> None:
    """Give the run a new root span: the first one ended with the run."""
    trace = traces.of_retry(tx.run.run_id, tx.run.trace, since=now, event=tx.run.last_event)
    if trace is not None and trace != tx.run.trace:
        runs.set_trace(tx, trace)


def _to_repeat(tx: RunTransaction, tolerant: set[str]) -> list[str]:
    states = tx.statuses(tx.definition.steps)
    tolerated = {step_id for step_id, state in states.items() if state == "failed" and step_id in tolerant}
    undone = [step_id for step_id, state in states.items() if state in ("failed", "cancelled")]
    blamed = _read_by_failure(tx.run.error or {}, tx.definition)
    return [step_id for step_id in undone if step_id not in tolerated or _is_read(step_id, blamed)]


def _read_by_failure(error: Mapping[str, object], definition: Definition) -> References:
    """Return what was read by the step or the run's output that failed the run when it could not be evaluated."""
    if error.get("code") not in _EVALUATION:
        return References()
    step = definition.steps.get(str(error.get("step_id")))
    if step is not None:
        return step.references
    return definition.output.references if definition.output is not None else References()


def _is_read(step_id: str, references: References) -> bool:
    keys = references.context_keys
    return step_id in references.steps or (references.context and (keys is None or step_id in keys))
