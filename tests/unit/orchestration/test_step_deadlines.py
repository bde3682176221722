"""An attempt that runs out of time has timed out, whoever notices it first."""

import asyncio

import pytest

from citadel_common.deadline import Deadline
from citadel_common.errors import (
    CitadelError,
    DeadlineExceeded,
    InvalidInput,
    LlmRefused,
    LlmUnavailable,
    StepTimedOut,
)
from citadel_orchestration.engine.step_deadlines import within_deadline
from citadel_orchestration.step_types import Execute, StepCall


def attempt(error: CitadelError, *, seconds: float) -> None:
    """Execute a step whose call fails with that error as its deadline is so far away."""

    async def fail(call):
        raise error

    call = StepCall(run_id="r", step_id="s", item=None, attempt=1, deadline=Deadline.after(seconds))
    asyncio.run(within_deadline(Execute(run=fail), call, 2.0))


@pytest.mark.parametrize("error", [LlmUnavailable("LLM endpoint 'main' did not finish within 2 s"), DeadlineExceeded()])
def test_a_transient_error_at_the_deadline_is_a_timeout_with_that_cause(error):
    with pytest.raises(StepTimedOut, match=r"did not end within 2 s: .*did not finish"):
        attempt(error, seconds=0)


@pytest.mark.parametrize(
    ("error", "seconds"),
    [(LlmUnavailable("refused the connection"), 60), (LlmRefused("no such model"), 0), (InvalidInput("query"), 0)],
)
def test_other_errors_are_the_steps_own(error, seconds):
    with pytest.raises(type(error)):
        attempt(error, seconds=seconds)
