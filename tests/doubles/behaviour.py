"""How the double misbehaves, switched at run time by `POST /_double/behaviour`.

Modes:
    ok              answers as a healthy server
    slow            holds its slot `delay_ms` longer (default 1000)
    hang            never answers; ends when the client hangs up
    dead            closes the connection without an answer; touches every route by default
    disconnect      closes the connection after half of the answer
    flapping        `period` requests ok, then `period` requests as `flap_mode`, and so on
    loading         unloads the models once; the next use loads them for `delay_ms` (default 500),
                    and requests beyond `--max-queue` meanwhile get the busy 503
    nan, runner400, too_long400, auth401, not_found404, rate429, error500, html502, busy503
                    the error of `refusals.BY_MODE` (`nan`: base64 answers carry real NaN bytes instead)
    zero, infinite, null, wrong_dimension
                    that flaw in the vector of every text (`vectors.Flaw`)
    missing, extra  one vector fewer, one more than there were inputs
    shuffled        `/v1` items in reverse order, their `index` right
    empty_answer    `{}` with status 200
    garbage_json    half of the answer's JSON with status 200
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from tests.doubles.markers import DEFAULT_MARKERS, Markers
from tests.doubles.models import canonical
from tests.doubles.refusals import BY_MODE, Refusal
from tests.doubles.vectors import FLAW_MODES

PLAIN_MODES = frozenset({"ok", "slow", "hang", "dead", "disconnect", "flapping", "loading"})
ANSWER_MODES = frozenset({"missing", "extra", "shuffled", "empty_answer", "garbage_json"})
MODES = PLAIN_MODES | ANSWER_MODES | frozenset(BY_MODE) | FLAW_MODES
DEFAULT_DELAY_MS = {"slow": 1000.0, "loading": 500.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Behaviour:
    """One behaviour; requests are counted from the moment it is set, GETs and other models left out."""

    mode: str = "ok"
    # milliseconds of waiting before the mode acts; None is the mode's own default, else 0
    delay_ms: float | None = None
    # the mode begins after so many healthy requests
    after_requests: int = 0
    # and is over after so many more; None is never
    for_requests: int | None = None
    # requests in each phase of flapping, and what the bad phase does
    period: int = 1
    flap_mode: str = "error500"
    # models touched; empty is all
    only_models: tuple[str, ...] = ()
    # "embed" or "all" (the catalogue and health routes too); None is the mode's own default
    routes: str | None = None
    # these replace the status, OpenAI's code, the message and the Retry-After of an error mode
    status: int | None = None
    code: str | None = None
    message: str | None = None
    retry_after_s: float | None = None
    # text that marks an input, and what it does to it
    markers: Mapping[str, str] = field(default_factory=lambda: DEFAULT_MARKERS)

    def __post_init__(self) -> None:
        unknown = {self.mode, self.flap_mode} - MODES
        if unknown:
            raise ValueError(f"unknown mode {sorted(unknown)}; one of {sorted(MODES)}")
        if self.period < 1 or self.routes not in {None, "embed", "all"}:
            raise ValueError("period is at least 1; routes is embed or all")

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> "Behaviour":
        """Return the behaviour that a control request asks for."""
        unknown = set(data) - {item.name for item in fields(cls)}
        if unknown:
            raise ValueError(f"unknown parameters {sorted(unknown)}")
        models = tuple(canonical(name) for name in data.get("only_models", ()))
        return cls(**{**data, "only_models": models})

    def wait_s(self, mode: str) -> float:
        """Return the seconds to wait before a mode acts."""
        wait = DEFAULT_DELAY_MS.get(mode, 0.0) if self.delay_ms is None else self.delay_ms
        return wait / 1000

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
        base = BY_MODE.get(mode)
        if base is None:
            return None
        retry_after_s = base.retry_after_s if self.retry_after_s is None else self.retry_after_s
        return Refusal(
            status=self.status or base.status,
            code=self.code or base.code,
            message=self.message or base.message,
            retry_after_s=retry_after_s,
            html=base.html,
        )


class Switch:
    """The behaviour in force and how many requests it has seen."""

    def __init__(self) -> None:
        self.set(Behaviour())

    def set(self, behaviour: Behaviour) -> None:
        """Put a behaviour in force and count from 0 again."""
        self.markers = Markers(behaviour.markers)
        self.behaviour = behaviour
        self.unloaded: set[str] = set()
        self._seen = 0

    def next_mode(self, model: str) -> str:
        """Return the mode for an embedding request and count it."""
        if self.behaviour.only_models and model not in self.behaviour.only_models:
            return "ok"
        self._seen += 1
        return self.behaviour.mode_at(self._seen - 1)

    def side_mode(self) -> str:
        """Return the mode for a request to another route, which is not counted."""
        mode = self.behaviour.mode_at(self._seen)
        routes = self.behaviour.routes or ("all" if mode == "dead" else "embed")
        return mode if routes == "all" else "ok"
