"""The commonest transition in one round trip; what it does is told in `migrations/0005_step_succeeded.sql`."""

from collections.abc import Sequence

from citadel_common.stores.postgres import Database
from citadel_orchestration.db.models import Effects, EndedAttempt, StepClaim, StepRef

_SUCCEEDED = "SELECT * FROM step_succeeded(%s, %s, %s, %s, %s, %s, %s, %s)"


def step_succeeded(
    database: Database,
    ref: StepRef,
    attempt: int,
    *,
    output: bytes,
    has_data: bool,
    following: Sequence[str],
    owner: str,
    lease: float,
) -> Effects | None:
    """Records a step's output and claims the steps `following`, which depend on nothing else.

    None, and nothing is changed, where the attempt is over, or the run is in another state.

    Raises:
        StoreUnavailable: It may or may not be done.
    """
    values = [ref.run_id, ref.step_id, attempt, output, has_data, list(following), owner, lease]
    rows = database.rows(_SUCCEEDED, values)
    if not rows:
        return None
    began, ended, before = rows[0][-3:]
    claims = [
        StepClaim(
            ref=StepRef(run_id=ref.run_id, step_id=step_id),
            attempt=its_attempt,
            tries=tries,
            workflow_id=workflow_id,
            kind=kind,
            lane=lane,
            depth=depth,
            run_deadline=deadline,
            trace=trace,
        )
        for step_id, its_attempt, tries, workflow_id, kind, lane, depth, deadline, trace, *_ in rows
    ]
    over = EndedAttempt(
        ref=ref, number=attempt, before=before, outcome="succeeded", error=None, began=began, ended=ended
    )
    return Effects(claims=claims, lane=claims[0].lane, attempts=[over])
