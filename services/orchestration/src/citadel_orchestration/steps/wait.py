"""`wait`: for a time, or for a signal. The engine does it: nothing executes meanwhile."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pydantic import model_validator

from citadel_orchestration.definition.durations import Duration
from citadel_orchestration.steps.base import Known, Output, Parameters, StepCall, StepType


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

    @property
    def seconds(self) -> float | None:
        """Seconds until the wait ends by itself; None for never."""
        return self.duration if self.signal is None else self.timeout


class Wait(StepType[WaitParameters]):
    """The type."""

    name: ClassVar[str] = "wait"
    parameters = WaitParameters
    outputs: ClassVar[frozenset[str]] = frozenset()

    def check(self, raw: Mapping[str, Any], known: Known) -> Iterator[tuple[str, str]]:
        """Nothing beyond the model."""
        return super().check(raw, known)

    async def execute(self, parameters: WaitParameters, call: StepCall) -> Output:
        """Never called: the record itself waits."""
        raise AssertionError(f"{parameters} is for the engine, {call.step_id}")
