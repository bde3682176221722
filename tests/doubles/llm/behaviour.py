"""Faults of the LLM double.

Modes, besides those of `tests.doubles.base.behaviour`:
    held            answers once it is released (`/_double/release`): a slow server under the test's control
    disconnect      closes the connection after half of the answer
    truncated       ends its answer after half of it as if that were all (in one piece: half of its JSON)
    stall           falls silent after half of the answer; ends when the client hangs up
    endless         goes on and on; ends when the client hangs up
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
    bad_json        an answer that is not JSON, whatever was asked
"""

from dataclasses import dataclass
from typing import ClassVar

from tests.doubles.base.behaviour import COMMON_MODES, Behaviour
from tests.doubles.base.refusals import COMMON, Refusal

QUOTA = "You exceeded your current quota, please check your plan and billing details."
REFUSALS = COMMON | {
    "bad400": Refusal(status=400, message="max_tokens must be at least 1"),
    "forbidden403": Refusal(status=403, message="this key may not use the model"),
    "not_found404": Refusal(status=404, message="model 'tiny-llm' not found"),
    "unprocessable422": Refusal(status=422, message="temperature: must be at most 2"),
    "echo_key": Refusal(status=401, message="Incorrect API key provided: {key}"),
    "quota429": Refusal(status=429, message=QUOTA, code="insufficient_quota"),
    "redirect307": Refusal(status=307, message="moved"),
}
CUT_SHORT = frozenset({"disconnect", "truncated", "stall", "endless", "stream_error"})
FRUITFUL = CUT_SHORT | {
    "ok",
    "slow",
    "held",
    "garbage_json",
    "no_usage",
    "no_stream",
    "no_done",
    "comments",
    "bad_json",
}


@dataclass(frozen=True, kw_only=True)
class LlmBehaviour(Behaviour):
    """One behaviour; it touches questions."""

    MODES: ClassVar = COMMON_MODES | FRUITFUL | REFUSALS.keys()
    REFUSALS: ClassVar = REFUSALS

    # prompts touched: those that hold this
    only_prompts: str = ""

    def touches(self, model: str, prompt: str) -> bool:
        """Return True if a question is one of those that the behaviour is meant for."""
        return (not self.only_models or model in self.only_models) and self.only_prompts in prompt
