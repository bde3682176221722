"""What one attempt of a step works with, and its execution within the time that it has."""

import asyncio
from typing import Any

from pydantic import ValidationError

from citadel_common.deadline import Deadline
from citadel_common.errors import CitadelError, DeadlineExceeded, StepTimedOut
from citadel_common.validation import bad_fields, invalid_input
from citadel_orchestration.db.models import StepClaim
from citadel_orchestration.definition.definition import Step
from citadel_orchestration.steps.base import Parameters, StepCall


def parameters_of(step: Step, scope: dict[str, Any]) -> Parameters:
    """A step's parameters, evaluated and checked.

    Raises:
        InvalidInput: They do not fit the type.
    """
    value = step.parameters.evaluate(scope)
    try:
        found: Parameters = step.type.parameters.model_validate(value)
    except ValidationError as error:
        raise invalid_input(bad_fields(error)[:1], before=f"step {step.step_id}: parameters: ") from None
    return found


def deadline_of(claim: StepClaim, step: Step) -> Deadline:
    """When the attempt must have ended: at the step's timeout, or at the run's deadline where that is earlier."""
    deadline = Deadline.after(step.timeout)
    if claim.run_deadline is None:
        return deadline
    run = Deadline.from_epoch(claim.run_deadline.timestamp())
    return min(deadline, run, key=lambda d: d.at)


async def executed(step: Step, parameters: Parameters, call: StepCall) -> Any:
    """What the step gives.

    Raises:
        StepTimedOut: The deadline has passed, whichever call noticed it first.
    """
    try:
        async with asyncio.timeout(max(0.0, call.deadline.remaining)):
            return await step.type.execute(parameters, call)
    except TimeoutError:
        cause = ""
    except CitadelError as error:
        late = call.deadline.remaining <= 0 and (error.transient or isinstance(error, DeadlineExceeded))
        if not late:
            raise
        cause = f": {error.message}"
    raise StepTimedOut(f"the step did not end within {step.timeout:g} s{cause}")
