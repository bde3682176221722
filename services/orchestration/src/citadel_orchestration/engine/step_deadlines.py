"""Deadlines of a step's attempts."""

import asyncio

from citadel_common.deadline import Deadline
from citadel_common.errors import CitadelError, DeadlineExceeded, StepTimedOut
from citadel_orchestration.db.models import StepClaim
from citadel_orchestration.definition.definition import Step
from citadel_orchestration.step_types import Execute, Output, StepCall

TIMER_S = 0.001


def deadline_of(claim: StepClaim, step: Step, *, waits: float = 0.0) -> Deadline:
    """Return when the attempt must have ended: at the step's timeout, or at the run's deadline if that is earlier.

    Args:
        claim: The attempt.
        step: The step.
        waits: Seconds that it may wait before its timeout begins.
    """
    deadline = Deadline.after(waits + step.timeout)
    return min(deadline, claim.run_deadline or deadline, key=lambda d: d.at)


async def within_deadline(effect: Execute, call: StepCall, timeout: float) -> Output:
    """Run the coroutine of a step until its deadline; an error says how many calls the step has made."""
    try:
        return await _within_deadline(effect, call, timeout)
    except CitadelError as error:
        error.calls = call.calls.made or None
        raise


async def _within_deadline(effect: Execute, call: StepCall, timeout: float) -> Output:
    """Run the coroutine of a step until its deadline.

    Args:
        effect: The step's.
        call: The attempt.
        timeout: Seconds of the step's timeout, for the message.

    Raises:
        StepTimedOut: The deadline has passed, whichever call noticed it first.
    """
    try:
        async with asyncio.timeout(max(0.0, call.deadline.remaining)):
            return await effect.run(call)
    except TimeoutError:
        cause = ""
    except CitadelError as error:
        # a timer of uvloop counts whole milliseconds, so a call's own may ring just before the deadline
        late = call.deadline.remaining <= TIMER_S and (error.retryable or isinstance(error, DeadlineExceeded))
        if not late:
            raise
        cause = f": {error.message}"
    raise StepTimedOut(f"the step did not end within {timeout:g} s{cause}")
