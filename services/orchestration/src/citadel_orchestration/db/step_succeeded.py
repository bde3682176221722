"""The commonest transition in one round trip, by the stored function of `migrations/0010_step_succeeded.sql`.

`tests/integration/engine/test_step_succeeded.py` proves that it does what the general transition does.
"""

import time
from datetime import datetime
from typing import Any

from citadel_common.deadline import Deadline
from citadel_common.stores.postgres import Database
from citadel_orchestration.db.models import Effects, EndedAttempt, StepClaim, StepRef
from citadel_orchestration.definition.definition import Step

_SUCCEEDED = "SELECT * FROM step_succeeded(%s, %s, %s, %s, %s, %s, %s, %s)"


def step_succeeded(
    database: Database,
    ref: StepRef,
    attempt: int,
    *,
    step: Step,
    output: bytes,
    has_data: bool,
    owner: str,
    lease: float,
) -> Effects | None:
    """Record a step's output and claim the steps that depend on it; they must depend on no other step.

    Returns:
        None, with nothing changed, if the attempt is over, the run may not start steps, or a dependent is not pending.

    Raises:
        StoreUnavailable: It may or may not be done.
    """
    values = [ref.run_id, ref.step_id, attempt, output, has_data, list(step.dependents), owner, lease]
    leased_at = time.monotonic()
    rows = database.rows(_SUCCEEDED, values)
    if not rows:
        return None
    began, ended, before = rows[0][-3:]
    claims = [_claim(ref, row, leased_at, now=ended) for row in rows]
    over = EndedAttempt(
        ref=ref,
        type=step.type.name,
        number=attempt,
        before=before,
        outcome="succeeded",
        error=None,
        began=began,
        ended=ended,
    )
    return Effects(claims=claims, lane=claims[0].lane, attempts=[over])


def _claim(ref: StepRef, row: tuple[Any, ...], leased_at: float, *, now: datetime) -> StepClaim:
    """Return the claim in a row; `now` is PostgreSQL's time."""
    step_id, attempt, tries, workflow_id, kind, lane, depth, deadline, trace, *_ = row
    return StepClaim(
        ref=StepRef(run_id=ref.run_id, step_id=step_id),
        attempt=attempt,
        tries=tries,
        workflow_id=workflow_id,
        kind=kind,
        lane=lane,
        depth=depth,
        run_deadline=None if deadline is None else Deadline.after((deadline - now).total_seconds()),
        trace=trace,
        leased_at=leased_at,
    )
