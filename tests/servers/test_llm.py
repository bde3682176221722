"""LLM servers through Citadel's client: what llama-server, Ollama and their double have in common."""

import asyncio
import json

import pytest

from citadel_common.errors import LlmRefused, PayloadTooLarge
from citadel_orchestration.step_types import StepCall
from citadel_orchestration.steps.llm_query import LlmQuery, LlmQueryParameters
from tests.integration.llm.asking import opened, question, soon

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9}, "ok": {"type": "boolean"}},
    "required": ["n", "ok"],
    "additionalProperties": False,
}
SHORT = {"max_tokens": 5, "seed": 1, "temperature": 0}


@pytest.fixture(params=[True, False], ids=["streamed", "whole"])
def endpoint(request, chat_server):
    """Settings of an endpoint at that server."""
    return {"url": chat_server.url, "style": chat_server.style, "model": chat_server.model, "stream": request.param}


def ask(endpoint, *questions):
    """The answers to some questions, asked at once."""

    async def run():
        async with opened(**endpoint) as clients:
            return await asyncio.gather(*(clients.ask(None, each, soon()) for each in questions))

    return asyncio.run(run())


def test_a_question_is_answered_and_counted(endpoint):
    [answer] = ask(endpoint, question("How are you?", options={"max_tokens": 20}))
    assert answer.text
    assert answer.model == endpoint["model"]
    assert answer.finish_reason in ("stop", "length")
    usage = answer.usage
    assert usage.prompt_tokens > 0
    assert 0 < usage.completion_tokens <= 20
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_an_answer_is_cut_at_its_limit_and_says_so(endpoint):
    [answer] = ask(endpoint, question("Tell me a long story, please.", options=SHORT))
    assert answer.finish_reason == "length"
    assert answer.usage.completion_tokens == 5
    assert answer.text


def test_the_same_seed_gives_the_same_answer(endpoint):
    first, second = ask(endpoint, *[question("Tell me a long story, please.", options=SHORT)] * 2)
    assert first.text == second.text


def test_a_schema_is_kept(endpoint):
    async def run():
        async with opened(**endpoint) as clients:
            parameters = {"query": "Which?", "response_schema": SCHEMA, "options": {"max_tokens": 300}}
            step = LlmQuery(clients).begin(LlmQueryParameters.model_validate(parameters))
            return await step.run(StepCall(run_id="r", step_id="s", item=None, attempt=1, deadline=soon()))

    output = asyncio.run(run())
    assert 1 <= output["json"]["n"] <= 9
    assert isinstance(output["json"]["ok"], bool)
    assert output["calls"] >= 1


def test_any_json_object_can_be_asked_for(endpoint):
    [answer] = ask(endpoint | {"json_mode": "schema"}, question("Which?", schema=SCHEMA, options={"max_tokens": 300}))
    assert json.loads(answer.text)


def test_a_question_that_is_too_long_is_refused_with_the_numbers(endpoint):
    with pytest.raises(PayloadTooLarge, match=r"does not fit the model's context.*tokens\) exceeds") as caught:
        ask(endpoint, question("word " * 3000, options=SHORT))
    assert not caught.value.retryable


def test_an_unknown_model_is_refused_or_answered_by_the_only_one(endpoint):
    asked = question("Hi", model="no-such-model", options=SHORT)
    if endpoint["style"] == "openai":
        [answer] = ask(endpoint, asked)
        assert answer.model == endpoint["model"]
        return
    with pytest.raises(LlmRefused, match=r"answered 404: model .no-such-model. not found"):
        ask(endpoint, asked)


def test_a_wrong_path_is_refused(endpoint):
    path = "/nowhere/v1" if endpoint["style"] == "openai" else "/nowhere"
    wrong = endpoint | {"url": endpoint["url"].removesuffix("/v1") + path}
    with pytest.raises(LlmRefused, match=r"answered 404: .*([Ff]ile Not Found|page not found)"):
        ask(wrong, question("Hi"))


def test_a_wrong_option_is_named(endpoint):
    if endpoint["style"] == "openai":
        with pytest.raises(LlmRefused, match=r"answered 400: Field 'max_tokens': Value must be"):
            ask(endpoint, question("Hi", options={"max_tokens": -5}))


def test_forty_questions_at_once_are_all_answered(endpoint):
    questions = [question(f"Question {number}?", options=SHORT | {"seed": number}) for number in range(40)]
    answers = ask(endpoint | {"max_concurrency": 40}, *questions)
    assert len(answers) == 40
    assert all(answer.text and answer.usage.prompt_tokens for answer in answers)


def test_a_conversation_reaches_the_server_whole(endpoint):
    short, long = ask(
        endpoint, question("Hi", options=SHORT), question("Hi there, my old and very good friend", options=SHORT)
    )
    assert long.usage.prompt_tokens > short.usage.prompt_tokens
