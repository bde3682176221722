"""The step `llm_query`, before a real server."""

import asyncio
import json

import pytest

from citadel_common.errors import BadLlmOutput, InvalidInput, LlmUnavailable
from citadel_orchestration.llm.output_schema import MAX_REFERENCES
from citadel_orchestration.step_types import StepCall
from citadel_orchestration.steps.llm_query import LlmQuery, LlmQueryParameters
from tests.doubles.llm.requests import expected_answer
from tests.integration.llm.asking import MODEL, opened, soon

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "pattern": "^[A-Z]"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
GOOD = '{"city": "Oslo", "people": 700000}'


def run(url, fields=None, **parameters):
    """Execute one step; `fields` are settings of the endpoint."""
    call = StepCall(run_id="r", step_id="s", item=None, attempt=1, deadline=soon())

    async def execute():
        async with opened(url, **(fields or {})) as clients:
            return await LlmQuery(clients).begin(LlmQueryParameters.model_validate(parameters)).run(call)

    return asyncio.run(execute())


def test_the_output_has_text_usage_and_model(server, way):
    output = run(server.url, way, query="What is new?")
    assert output == {
        "text": expected_answer("What is new?"),
        "json": None,
        "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
        "model": MODEL,
        "endpoint": "main",
        "finish_reason": "stop",
        "reasoning": None,
        "calls": 1,
        "dropped_options": [],
    }
    assert output.keys() == LlmQuery.outputs


def test_context_and_service_endpoint_are_accepted(server):
    context = {"topic": "ships", "embedding": [0.5] * 768}
    output = run(server.url, query="What is new?", context=context, service_endpoint=server.url)
    (seen,) = server.stats()["prompt_counts"]
    assert seen == 'Context:\n{"topic":"ships","embedding":"[768 numbers]"}\n\nWhat is new?'
    assert output["text"] == expected_answer(seen)


def test_the_system_message_comes_first(server, way):
    run(server.url, way, query="Hi", system="Be brief.")
    assert server.stats()["recent"][0]["messages"][0] == {"role": "system", "content": "Be brief."}


def test_json_that_fits_the_schema_is_returned(server, way):
    server.script(GOOD)
    output = run(server.url, way, query="Which city?", response_schema=SCHEMA)
    assert output["json"] == {"city": "Oslo", "people": 700000}
    assert output["text"] == GOOD
    assert server.stats()["requests"] == 1


@pytest.mark.parametrize("text", [f"```json\n{GOOD}\n```", f"```\n{GOOD}```", f"\n {GOOD}\n"])
def test_json_in_a_markdown_fence_is_read(server, text):
    server.script(text)
    assert run(server.url, query="Which city?", response_schema=SCHEMA)["json"]["city"] == "Oslo"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("Sure! The city is Oslo.", "it is not JSON"),
        ('{"city": "oslo", "people": 7}', "$.city: does not match"),
        ('{"city": "Oslo"}', "'people' is a required property"),
        ('{"city": "Oslo", "people": 7, "x": 1}', "'x' was unexpected"),
        ("NaN", "cannot be kept exactly"),
    ],
)
def test_a_bad_answer_is_asked_again_with_what_was_wrong(server, way, bad, reason):
    server.script(bad, GOOD)
    output = run(server.url, way, query="Which city?", response_schema=SCHEMA)
    assert output["json"]["people"] == 700000
    first, second = server.stats()["recent"]
    assert second["messages"][: len(first["messages"])] == first["messages"]
    answered, corrected = second["messages"][-2:]
    assert answered == {"role": "assistant", "content": bad}
    assert reason in corrected["content"]


def test_the_cost_of_all_calls_adds_up(server):
    server.script("no", "no", GOOD)
    output = run(server.url, query="Which city?", response_schema=SCHEMA)
    assert output["usage"]["completion_tokens"] == 1 + 1 + len(GOOD.split())
    assert output["usage"]["total_tokens"] == output["usage"]["prompt_tokens"] + output["usage"]["completion_tokens"]


@pytest.mark.parametrize("retries", [0, 2])
def test_the_step_fails_after_its_schema_retries(server, way, retries):
    server.behaviour("bad_json")
    with pytest.raises(BadLlmOutput, match=f"asked {1 + retries} times: it is not JSON"):
        run(server.url, way, query="Which city?", response_schema=SCHEMA, schema_retries=retries)
    assert server.stats()["requests"] == 1 + retries


def test_the_correction_of_a_cut_answer_names_the_token_limit(server):
    server.script({"text": '{"city": "Os', "finish_reason": "length"}, GOOD)
    run(server.url, query="Which city?", response_schema=SCHEMA)
    assert "cut off at the token limit" in server.stats()["recent"][1]["messages"][-1]["content"]


def test_an_outage_between_two_answers_is_an_outage(server):
    server.script("no", {"mode": "busy503"})
    with pytest.raises(LlmUnavailable):
        run(server.url, query="Which city?", response_schema=SCHEMA)


def test_a_bad_schema_asks_nobody(server):
    with pytest.raises(InvalidInput, match=r"response_schema/\$ref: must refer to a place in this schema"):
        run(server.url, query="Which city?", response_schema={"$ref": f"{server.url}/schema.json"})
    stats = server.stats()
    assert (stats["requests"], stats["other_requests"]) == (0, {})


def test_a_schema_that_multiplies_itself_ends(server):
    levels = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 3} for n in range(20)}
    schema = {"$ref": "#/$defs/a0", "$defs": {**levels, "a20": {"type": "string"}}}
    assert MAX_REFERENCES < 3**20
    server.script('"text"')
    with pytest.raises(BadLlmOutput, match="nested too deeply to be checked"):
        run(server.url, query="Which?", response_schema=schema, schema_retries=0)


def test_a_pattern_that_backtracks_ends(server):
    server.script(json.dumps("a" * 100_000 + "!"))
    with pytest.raises(BadLlmOutput, match="does not match"):
        run(server.url, query="Which?", response_schema={"type": "string", "pattern": "^(a+)+$"}, schema_retries=0)
