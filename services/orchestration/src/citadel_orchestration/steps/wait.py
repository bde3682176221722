"""`wait`: for a time, or for a signal."""

from typing import ClassVar

from pydantic import model_validator

from citadel_orchestration.definition.models import Duration
from citadel_orchestration.step_types import Parameters, StepEffect, StepType, Wait


class WaitParameters(Parameters):
    """Parameters of `wait`.

    Attributes:
        duration: How long.
        signal: Name of the signal that ends the wait; its payload is the output.
        timeout: How long the signal is waited for; without one, as long as the run lasts.
    """

    duration: Duration | None = None
    signal: str | None = None
    timeout: Duration | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "WaitParameters":
        if (self.duration is None) == (self.signal is None):
            raise ValueError("give either duration or signal")
        if self.timeout is not None and self.signal is None:
            raise ValueError("timeout goes with signal")
        return self


class WaitStep(StepType[WaitParameters]):
    """Output: the signal's payload; an empty object after a duration."""

    name: ClassVar[str] = "wait"
    parameters = WaitParameters
    outputs: ClassVar[frozenset[str]] = frozenset()

    def begin(self, parameters: WaitParameters) -> StepEffect:
        """Wait for the duration, or for the signal until its timeout."""
        seconds = parameters.duration if parameters.signal is None else parameters.timeout
        return Wait(seconds=seconds, signal=parameters.signal)
