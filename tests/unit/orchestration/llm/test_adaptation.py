"""Questions that a server refuses for their form are put differently, and the server is not asked that way again."""

import asyncio
import json

import pytest

from citadel_common.deadline import Deadline
from citadel_common.errors import LlmRefused
from tests.unit.orchestration.llm.answering import endpoint, question, response

OK = json.dumps({"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}]})
SCHEMA = {"type": "object"}


def refusing(reason, *, status=400, body=None):
    """A server that refuses requests for which `reason` has words, and the requests that it has seen."""
    seen = []

    def handler(request):
        sent = json.loads(request.content)
        seen.append(sent)
        words = reason(sent)
        if words is None:
            return response(OK)
        return response(json.dumps(body(words) if body else {"error": {"message": words}}), status)

    return handler, seen


def ask(handler, *questions, **fields):
    """The answers to questions, asked one after the other."""

    async def run():
        asked = endpoint(handler, **fields)
        return [await asked.ask(each, Deadline.after(30), lambda: None) for each in questions]

    return asyncio.run(run())


def modes(seen):
    return [sent.get("response_format", {}).get("type") for sent in seen]


@pytest.mark.parametrize(
    "words",
    [
        "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.",
        "This response_format type is unavailable now",
        "This model does not support response format `json_schema`.",
        'response_format type must be one of "text" or "json_object", but got: json_schema',
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_a_server_without_schemas_is_asked_for_any_object(words, status):
    handler, seen = refusing(lambda sent: words if "json_schema" in json.dumps(sent) else None, status=status)
    answers = ask(handler, question(schema=SCHEMA), question(schema=SCHEMA))
    assert [answer.text for answer in answers] == ["ok", "ok"]
    assert modes(seen) == ["json_schema", "json_object", "json_object"]


def test_a_server_without_json_modes_is_asked_by_the_prompt_alone():
    words = "'response_format' is not supported"
    handler, seen = refusing(lambda sent: words if "response_format" in sent else None)
    ask(handler, question(schema=SCHEMA), question(schema=SCHEMA))
    assert modes(seen) == ["json_schema", "json_object", None, None]


def test_a_schema_that_a_server_does_not_take_is_no_reason_to_give_up_all_schemas():
    words = "Invalid schema for response_format 'answer': unrecognized type wrong"
    handler, seen = refusing(lambda sent: words if "wrong" in json.dumps(sent) else None)
    ask(handler, question(schema={"type": "wrong"}), question(schema=SCHEMA))
    assert modes(seen) == ["json_schema", "json_object", "json_schema"]


def test_ollamas_format_is_left_out():
    words = 'invalid format: expected "json" or a valid JSON Schema object'
    handler, seen = refusing(lambda sent: words if "format" in sent else None, status=500)
    answered = json.dumps({"message": {"content": "ok"}, "done": True})
    ask(lambda request: response(answered) if handler(request).status_code == 200 else handler(request),
        question(schema=SCHEMA), style="ollama")  # fmt: skip
    assert "format" not in seen[-1]


@pytest.mark.parametrize(
    "body",
    [
        lambda name: {"error": {"message": f"Unsupported parameter: '{name}' is not supported with this model. Use"
                                " 'max_completion_tokens' instead.", "param": name, "code": "unsupported_parameter"}},
        lambda name: {"error": {"message": f"Unrecognized request argument supplied: {name}", "param": None}},
        lambda name: {"detail": [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not"
                                  " permitted", "input": 1}]},
        lambda name: {"detail": f"Extra parameters ['{name}'] are not allowed when extra-parameters is not set"},
        lambda name: {"error": f"Extra inputs are not permitted, field: '{name}'"},
    ],
)  # fmt: skip
class TestOptions:
    @pytest.mark.parametrize("pair", [("max_tokens", "max_completion_tokens"), ("max_completion_tokens", "max_tokens")])
    def test_the_limit_of_tokens_has_two_names(self, body, pair):
        handler, seen = refusing(lambda sent: pair[0] if pair[0] in sent else None, body=body)
        ask(handler, *[question(options={pair[0]: 9})] * 2)
        assert [sent.get(pair[1]) for sent in seen] == [None, 9, 9]

    def test_token_counts_are_not_asked_for_again(self, body):
        handler, seen = refusing(lambda sent: "stream_options" if "stream_options" in sent else None, body=body)
        ask(handler, question(), question())
        assert ["stream_options" in sent for sent in seen] == [True, False, False]

    def test_a_temperature_is_left_out_and_shown(self, body):
        handler, seen = refusing(lambda sent: "temperature" if "temperature" in sent else None, body=body)
        first, second, third = ask(handler, *[question(options={"temperature": 0.2, "seed": 1})] * 2, question())
        assert first.dropped_options == second.dropped_options == ("temperature",)
        assert third.dropped_options == ()
        assert ["temperature" in sent for sent in seen] == [True, False, False, False]
        assert all(sent["seed"] == 1 for sent in seen[:3])

    def test_what_the_question_needs_is_never_left_out(self, body):
        handler, seen = refusing(lambda sent: "stop" if "stop" in sent else None, body=body)
        with pytest.raises(LlmRefused):
            ask(handler, question(options={"stop": ["."]}))
        assert len(seen) == 1


def test_a_wrong_value_is_refused_and_not_left_out():
    handler, seen = refusing(lambda _: "temperature: must be at most 2", status=422)
    with pytest.raises(LlmRefused, match="must be at most 2"):
        ask(handler, question(options={"temperature": 9}))
    assert len(seen) == 1


def test_a_server_that_cannot_stream_is_asked_for_a_whole_answer():
    words = "Your organization must be verified to stream: 'stream' does not support true with this model"
    handler, seen = refusing(lambda sent: words if sent.get("stream") else None)
    ask(handler, question(), question())
    assert [sent.get("stream") for sent in seen] == [True, None, None]


def test_what_one_model_refuses_another_is_still_asked():
    handler, seen = refusing(lambda sent: "seed is not supported" if "seed" in sent and sent["model"] == "a" else None)
    ask(handler, *[question(model=model, options={"seed": 1}) for model in ("a", "b", "a")])
    assert [(sent["model"], "seed" in sent) for sent in seen] == [
        ("a", True), ("a", False), ("b", True), ("a", False)
    ]  # fmt: skip


def test_a_server_that_refuses_everything_is_asked_a_bounded_number_of_times():
    handler, seen = refusing(lambda sent: f"unsupported: {', '.join(sent)}, response_format")
    options = dict.fromkeys(("temperature", "seed", "top_p", "top_k", "min_p", "user", "think", "store"), 1)
    with pytest.raises(LlmRefused):
        ask(handler, question(schema=SCHEMA, options=options))
    assert len(seen) <= 8
