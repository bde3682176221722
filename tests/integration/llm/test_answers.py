"""Questions and answers over real connections, in both protocols, streamed and whole."""

import asyncio
import json

import openai
import pytest

from citadel_common.errors import InvalidInput
from citadel_orchestration.llm.question import Message, Question, Usage
from tests.doubles.llm.requests import expected_answer
from tests.integration.llm.asking import MODEL, ask, opened, question, soon
from tests.support.gateway import gateway

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def test_an_answer_has_text_and_usage(server, way):
    answer = ask(server.url, question("one two three"), **way)
    assert answer.text == expected_answer("one two three")
    assert (answer.endpoint, answer.model, answer.finish_reason) == ("main", MODEL, "stop")
    assert answer.usage == Usage(prompt_tokens=3, completion_tokens=5, total_tokens=8)


def test_the_server_sees_the_whole_conversation(server, way):
    turns = (Message(role="system", content="Be kind."), Message(role="user", content="Hi"))
    ask(server.url, Question(messages=turns, model="other", options={"temperature": 0, "max_tokens": 9}), **way)
    (seen,) = server.stats()["recent"]
    assert seen["messages"] == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    assert seen["model"] == "other"
    options = seen["options"] if way["style"] == "ollama" else seen
    assert options["temperature"] == 0
    assert options["num_predict" if way["style"] == "ollama" else "max_tokens"] == 9


@pytest.mark.parametrize("mode", ["schema", "object", "prompt"])
def test_json_is_asked_for_as_the_endpoint_understands_it(server, way, mode):
    answer = ask(server.url, question(schema=SCHEMA), json_mode=mode, **way)
    expected = {"schema": {"n": 1}, "object": {"answer": expected_answer("How are you?")}}
    if mode == "prompt":
        assert answer.text == expected_answer("How are you?")
    else:
        assert json.loads(answer.text) == expected[mode]


@pytest.mark.parametrize(
    "text",
    ["", "line\u2028separator\u0085and\u2029more", "two\n\nlines \r\n and data: [DONE]", "\U0001f600 ünï"],
)
def test_words_come_through_unchanged(server, way, text):
    server.script(text)
    assert ask(server.url, **way).text == text


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_a_base_url_may_end_in_v1(server, way, suffix):
    assert ask(server.url + suffix, **way).text == expected_answer("How are you?")


@pytest.mark.parametrize(
    ("style", "mount", "route"),
    [
        ("openai", "/v1beta/openai", "/chat/completions"),
        ("openai", "/openai/deployments/x", "/chat/completions?api-version=2"),
        ("ollama", "/team/ollama", "/api/chat"),
    ],
)
def test_a_base_url_with_a_path_of_its_own_is_taken_as_given(server, style, mount, route):
    target = server.url + "/v1" * (style == "openai")
    with gateway(target, mount=mount) as (url, calls):
        for given in (url + route.removeprefix("/chat/completions"), url + route):
            assert ask(given, style=style).text == expected_answer("How are you?")
    assert calls.calls == [f"POST {mount}{route}"] * 2


@pytest.mark.parametrize("mode", ["no_stream", "comments", "no_done"])
def test_unusual_streams_are_read(server, streamed, mode):
    server.behaviour(mode)
    assert ask(server.url, **streamed).text == expected_answer("How are you?")


def test_usage_is_zero_if_the_server_does_not_count(server, way):
    server.behaviour("no_usage")
    assert ask(server.url, **way).usage == Usage()


def test_counts_are_not_asked_for_where_the_server_cannot(server):
    assert ask(server.url, stream_usage=False).usage == Usage()
    assert "stream_options" not in server.stats()["recent"][0]


def test_an_answer_that_was_cut_says_so(server, way):
    server.script({"text": "and then", "finish_reason": "length"})
    assert ask(server.url, **way).finish_reason == "length"


def test_one_connection_serves_many_questions(server, way):
    async def run():
        async with opened(server.url, **way) as clients:
            for number in range(5):
                await clients.ask("main", question(f"question {number}"), soon())
            (endpoint,) = clients._open.values()
            return len(endpoint._http._transport._pool.connections)

    assert asyncio.run(run()) == 1
    assert server.stats()["max_answered_count"] == 1


@pytest.mark.parametrize("path", ["", "/", "/api/generate", "/api/chat", "/v1/chat/completions"])
def test_a_configured_url_is_as_good_as_its_name(server, path):
    assert ask(server.url, endpoint=server.url + path).endpoint == "main"


@pytest.mark.parametrize("other", ["http://127.0.0.1:1", "{}/admin", "{}@example.com", "gpt", "{}/v1/../admin"])
def test_urls_that_are_not_configured_are_not_called(server, other):
    with pytest.raises(InvalidInput, match="configured: main"):
        ask(server.url, endpoint=other.format(server.url))
    assert server.stats()["requests"] == 0
    assert server.stats()["other_requests"] == {}


def test_reserved_options_are_refused(server):
    with pytest.raises(InvalidInput, match="options: stream cannot be set"):
        ask(server.url, question(options={"stream": False}))
    assert server.stats()["requests"] == 0


def test_the_double_satisfies_the_real_openai_client(server):
    messages = [{"role": "user", "content": "Hi"}]
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        whole = client.chat.completions.create(model=MODEL, messages=messages)
        assert whole.choices[0].message.content == expected_answer("Hi")
        with client.chat.completions.create(model=MODEL, messages=messages, stream=True) as stream:
            words = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        assert "".join(words) == expected_answer("Hi")
        server.behaviour("rate429")
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(model=MODEL, messages=messages)
