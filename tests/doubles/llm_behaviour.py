"""How the LLM double misbehaves, switched at run time by `POST /_double/behaviour`.

Modes:
    ok              answers as a healthy server
    slow            answers `delay_ms` later (default 1000)
    hang            never answers; ends when the client hangs up
    dead            closes the connection without an answer
    disconnect      closes the connection after half of the answer
    truncated       ends its answer after half of it as if that were all (in one piece: half of its JSON)
    stall           falls silent after half of the answer; ends when the client hangs up
    endless         goes on and on; ends when the client hangs up
    flapping        `period` requests ok, then `period` requests as `flap_mode`, and so on
    stream_error    an error inside the answer, with status 200
    garbage_json    half of the answer's JSON with status 200 (in a stream: of its first piece)
    no_usage        no token counts
    no_stream       answers in one piece, asked for a stream or not
    no_done         ends its streams without saying that they are over, after the reason to finish
    comments        streams with comments and blank lines (SSE only)
    echo_key        refuses the key with 401, and repeats it
    quota429        refuses with 429 for good: the quota is used up
    redirect307     sends the client elsewhere: to itself, so that a followed redirect is seen as a request
    bad400, auth401, forbidden403, not_found404, unprocessable422, rate429, error500, html502, busy503
                    that error
    bad_json        an answer that is no JSON, whatever was asked
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from tests.doubles.refusals import BY_MODE, Refusal

QUOTA = "You exceeded your current quota, please check your plan and billing details."
REFUSALS = {
    **{mode: BY_MODE[mode] for mode in ("auth401", "rate429", "error500", "html502", "busy503")},
    "bad400": Refusal(status=400, message="max_tokens must be at least 1"),
    "forbidden403": Refusal(status=403, message="this key may not use the model"),
    "not_found404": Refusal(status=404, message="model 'tiny-llm' not found"),
    "unprocessable422": Refusal(status=422, message="temperature: must be at most 2"),
    "echo_key": Refusal(status=401, message="Incorrect API key provided: {key}"),
    "quota429": Refusal(status=429, message=QUOTA),
    "redirect307": Refusal(status=307, message="moved"),
}
CUT_SHORT = frozenset({"disconnect", "truncated", "stall", "endless", "stream_error"})
FRUITFUL = CUT_SHORT | {"ok", "slow", "garbage_json", "no_usage", "no_stream", "no_done", "comments", "bad_json"}
MODES = FRUITFUL | REFUSALS.keys() | {"hang", "dead", "flapping"}


@dataclass(frozen=True, kw_only=True, slots=True)
class LlmBehaviour:
    """One behaviour; questions are counted from the moment it is set."""

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
    # prompts touched: those that hold this
    only_prompts: str = ""
    # these replace the status, the message and the Retry-After of an error mode
    status: int | None = None
    message: str | None = None
    retry_after_s: float | None = None

    def __post_init__(self) -> None:
        unknown = {self.mode, self.flap_mode} - MODES
        if unknown:
            raise ValueError(f"unknown mode {sorted(unknown)}; one of {sorted(MODES)}")

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> "LlmBehaviour":
        """Return the behaviour that a control request asks for."""
        unknown = set(data) - {item.name for item in fields(cls)}
        if unknown:
            raise ValueError(f"unknown parameters {sorted(unknown)}")
        return cls(**{**data, "only_models": tuple(data.get("only_models", ()))})

    def touches(self, model: str, prompt: str) -> bool:
        """Return whether a question is one of those that it is meant for."""
        return (not self.only_models or model in self.only_models) and self.only_prompts in prompt

    def wait_s(self, mode: str) -> float:
        """Return the seconds to wait before a mode acts."""
        default = 1000.0 if mode == "slow" else 0.0
        return (default if self.delay_ms is None else self.delay_ms) / 1000

    def mode_at(self, number: int) -> str:
        """Return the mode for the question with this number, counted from 0."""
        since = number - self.after_requests
        if since < 0 or (self.for_requests is not None and since >= self.for_requests):
            return "ok"
        if self.mode == "flapping":
            return self.flap_mode if since // self.period % 2 else "ok"
        return self.mode

    def refusal(self, mode: str) -> Refusal | None:
        """Return the error of a mode, with this behaviour's own words where it has some."""
        base = REFUSALS.get(mode)
        if base is None:
            return None
        return Refusal(
            status=self.status or base.status,
            message=self.message or base.message,
            retry_after_s=base.retry_after_s if self.retry_after_s is None else self.retry_after_s,
            html=base.html,
        )
