"""What the step `llm_query` makes of answers: none without text passes silently, and calls are bounded."""

import asyncio

import pytest

from citadel_common.deadline import Deadline
from citadel_common.errors import BadLlmOutput
from citadel_orchestration.llm.question import Answer, Usage
from citadel_orchestration.step_types import CallCount, StepCall
from citadel_orchestration.steps.llm_query import LlmQuery, LlmQueryParameters

SCHEMA = {"type": "object", "required": ["n"]}


def answer(text="", finish_reason="stop", **fields):
    usage = Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)
    return Answer(text=text, endpoint="main", model="m", usage=usage, finish_reason=finish_reason, **fields)


class Scripted:
    """Gives its answers one after the other."""

    def __init__(self, *answers):
        self.answers = list(answers)

    async def ask(self, *asked):
        asked[-1]()  # says that the question was accepted
        return self.answers.pop(0)


def run(*answers, made=0, **parameters):
    call = StepCall(
        run_id="r", step_id="s", item=None, attempt=1, deadline=Deadline.after(30), calls=CallCount(made=made)
    )
    parsed = LlmQueryParameters.model_validate({"query": "q", **parameters})
    return asyncio.run(LlmQuery(Scripted(*answers)).begin(parsed).run(call))


EMPTY = [
    (answer(finish_reason="length"), "used up its tokens before it answered: raise max_tokens", False),
    (answer(finish_reason="length", reasoning="hm" * 9), "it wrote 18 characters of reasoning", False),
    (answer(finish_reason="tool_calls", tool_calls=("search",)), r"asks for tools \(search\)", False),
    (answer(reasoning="hm"), "answered with only reasoning", True),
    (answer(), "answered with no text", True),
]


@pytest.mark.parametrize(("empty", "words", "retryable"), EMPTY)
def test_an_answer_without_text_is_a_failure(empty, words, retryable):
    with pytest.raises(BadLlmOutput, match=words) as caught:
        run(empty)
    assert caught.value.retryable is retryable


@pytest.mark.parametrize("empty", [case[0] for case in EMPTY])
def test_an_answer_without_text_is_a_success_where_that_is_allowed(empty):
    output = run(empty, allow_empty=True)
    assert (output["text"], output["finish_reason"]) == ("", empty.finish_reason)


@pytest.mark.parametrize(("empty", "words", "_"), EMPTY)
def test_with_a_schema_it_is_asked_for_again_and_then_a_failure(empty, words, _):
    assert run(empty, answer('{"n": 1}'), response_schema=SCHEMA)["json"] == {"n": 1}
    with pytest.raises(BadLlmOutput, match="asked 3 times"):
        run(*[empty] * 3, response_schema=SCHEMA)


def test_text_beside_wanted_tools_is_an_answer():
    output = run(answer("so", finish_reason="tool_calls", tool_calls=("search",), reasoning="hm"))
    assert (output["text"], output["reasoning"]) == ("so", "hm")


def test_calls_of_earlier_attempts_count():
    assert run(answer("so"), made=3)["calls"] == 4
    with pytest.raises(BadLlmOutput, match=r"has made its 4 calls \(max_calls\)") as caught:
        run(answer("so"), made=4, max_calls=4)
    assert not caught.value.retryable
    with pytest.raises(BadLlmOutput, match="asked 1 times"):
        run(answer("no"), answer("no"), made=3, max_calls=4, response_schema=SCHEMA)


def test_reasoning_in_an_output_is_bounded():
    assert len(run(answer("so", reasoning="x" * 10**6))["reasoning"]) == 20_000
