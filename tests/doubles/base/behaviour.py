"""Faults of a double, switched at run time by `POST /_double/behaviour`.

Modes that every double has:
    ok          answers as a healthy server
    slow        answers `delay_ms` later (default 1000)
    hang        never answers; ends when the client hangs up
    dead        closes the connection without an answer
    flapping    `period` requests ok, then `period` requests as `flap_mode`, and so on
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from tests.doubles.base.refusals import Refusal

COMMON_MODES = frozenset({"ok", "slow", "hang", "dead", "flapping"})


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """One behaviour; requests are counted from the moment it is set, those that it does not touch left out."""

    MODES: ClassVar[frozenset[str]] = COMMON_MODES
    REFUSALS: ClassVar[Mapping[str, Refusal]] = {}
    DELAYS_MS: ClassVar[Mapping[str, float]] = {"slow": 1000.0}

    mode: str = "ok"
    # milliseconds of waiting before the mode acts; None is the mode's own default, else 0
    delay_ms: float | None = None
    # the mode begins after so many healthy requests
    after_requests: int = 0
    # and is over after so many more; None is never
    for_requests: int | None = None
    # requests in each phase of flapping, and the mode of the bad phase
    period: int = 1
    flap_mode: str = "error500"
    # models touched; empty is all
    only_models: tuple[str, ...] = ()
    # these replace the status, OpenAI's code, the message and the Retry-After of an error mode
    status: int | None = None
    code: str | None = None
    message: str | None = None
    retry_after_s: float | None = None

    def __post_init__(self) -> None:
        unknown = {self.mode, *((self.flap_mode,) if self.mode == "flapping" else ())} - self.MODES
        if unknown:
            raise ValueError(f"unknown mode {sorted(unknown)}; one of {sorted(self.MODES)}")
        if self.period < 1:
            raise ValueError("period is at least 1")

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Self:
        """Return the behaviour that a control request asks for."""
        unknown = set(data) - {item.name for item in fields(cls)}
        if unknown:
            raise ValueError(f"unknown parameters {sorted(unknown)}")
        return cls(**{**data, "only_models": tuple(data.get("only_models", ()))})

    def wait_s(self, mode: str) -> float:
        """Return the seconds to wait before a mode acts."""
        return (self.DELAYS_MS.get(mode, 0.0) if self.delay_ms is None else self.delay_ms) / 1000

    def mode_at(self, number: int) -> str:
        """Return the mode for the request with this number, counted from 0."""
        since = number - self.after_requests
        if since < 0 or (self.for_requests is not None and since >= self.for_requests):
            return "ok"
        if self.mode == "flapping":
            return self.flap_mode if since // self.period % 2 else "ok"
        return self.mode

    def refusal(self, mode: str) -> Refusal | None:
        """Return the error of a mode, with this behaviour's own words where it has some."""
        base = self.REFUSALS.get(mode)
        if base is None:
            return None
        return Refusal(
            status=self.status or base.status,
            message=self.message or base.message,
            retry_after_s=base.retry_after_s if self.retry_after_s is None else self.retry_after_s,
            html=base.html,
            code=self.code or base.code,
        )


class Switch:
    """The behaviour in force and how many requests it has seen."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.set(behaviour)

    def set(self, behaviour: Behaviour) -> None:
        """Put a behaviour in force and count from 0 again."""
        self.behaviour: Any = behaviour
        self._seen = 0

    def next_mode(self, *, touched: bool = True) -> str:
        """Return the mode for a request and count it, unless the behaviour does not touch it."""
        if not touched:
            return "ok"
        self._seen += 1
        mode: str = self.behaviour.mode_at(self._seen - 1)
        return mode

    def side_mode(self) -> str:
        """Return the mode for a request to a side route, which is not counted."""
        mode: str = self.behaviour.mode_at(self._seen)
        return mode
