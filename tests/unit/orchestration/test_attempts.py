"""An attempt that runs out of time has timed out, whoever notices it first."""

import asyncio
from types import SimpleNamespace

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
from citadel_orchestration.engine.attempts import executed


def attempt(error: CitadelError, *, seconds: float) -> None:
    """Execute a step whose call fails with that error as its deadline is so far away."""

    async def fail(parameters, call):
        raise error

    step = SimpleNamespace(timeout=2.0, type=SimpleNamespace(execute=fail))
    call = SimpleNamespace(deadline=Deadline.after(seconds))
    asyncio.run(executed(step, None, call))


@pytest.mark.parametrize("error", [LlmUnavailable("LLM endpoint 'main' did not finish within 2 s"), DeadlineExceeded()])
def test_what_a_call_says_at_the_deadline_is_the_cause(error):
    with pytest.raises(StepTimedOut, match=r"did not end within 2 s: .*did not finish"):
        attempt(error, seconds=0)


@pytest.mark.parametrize(
    ("error", "seconds"),
    [(LlmUnavailable("refused the connection"), 60), (LlmRefused("no such model"), 0), (InvalidInput("query"), 0)],
)
def test_every_other_error_is_the_steps_own(error, seconds):
    with pytest.raises(type(error)):
        attempt(error, seconds=seconds)
