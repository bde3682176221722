"""Bodies and streams of LLM servers in all their forms: each is an answer, or an error that says what is wrong."""

import json

import pytest

from citadel_common.errors import BadLlmOutput, LlmRefused, LlmUnavailable, PayloadTooLarge
from tests.unit.orchestration.llm.answering import answer_to

STYLES = ["openai", "ollama"]


def chunk(delta=None, finish=None, **others):
    return json.dumps({"choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}], **others})


def sse(*payloads, done=True, end="\n\n", prefix="data: "):
    return "".join(f"{prefix}{payload}{end}" for payload in [*payloads, *(["[DONE]"] if done else [])])


def whole(finish="stop", **message):
    return json.dumps({"model": "m", "choices": [{"message": message, "finish_reason": finish}]})


PIECES = [chunk({"role": "assistant", "content": None}), chunk({"content": "Grüße "}), chunk({"content": "\U0001f600"})]
STREAM = [*PIECES, chunk(finish="stop")]
TEXT = "Grüße \U0001f600"


@pytest.mark.parametrize("size", [None, 1, 7])
@pytest.mark.parametrize(
    "body",
    [
        sse(*STREAM),
        sse(*STREAM, done=False),
        sse(*PIECES),
        "\ufeff" + sse(*STREAM),
        sse(*STREAM, end="\r\n\r\n"),
        sse(*STREAM, end="\r\r"),
        sse(*STREAM, end="\n"),
        sse(*STREAM, prefix="data:"),
        ": keep-alive\n\n" + sse(*STREAM, end="\n\n: ping\n\n"),
        "event: message\nid: 1\nretry: 3000\n" + sse(*STREAM),
        sse(*[json.dumps(json.loads(piece), indent=1).replace("\n", "\ndata: ") for piece in STREAM]),
        sse(*STREAM, json.dumps({"choices": [], "usage": {"prompt_tokens": 1}})),
        sse(*[piece.replace("{", '{"usage": null, "id": "same", ', 1) for piece in STREAM]),
        sse(json.dumps({"choices": []}), *STREAM),
        sse(*PIECES, json.dumps({"choices": [{"message": {"content": TEXT}, "finish_reason": "stop"}]})),
        sse(*STREAM, done=False) + "data: [DONE]",
        "\n".join(STREAM),
        whole(content=TEXT),
        json.dumps(json.loads(whole(content=TEXT)), indent=2),
        whole(content=TEXT, finish=None),
        f"[{whole(content=TEXT)}]",
        whole(content=[{"type": "text", "text": "Grüße "}, {"type": "image"}, {"type": "text", "text": "\U0001f600"}]),
        json.dumps({"choices": [{"text": TEXT, "finish_reason": "stop"}]}),
        whole(content=TEXT).replace('"model"', '"logprob": NaN, "model"'),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_a_text_is_read_in_whatever_form_it_comes(body, size, stream):
    assert answer_to(body, size=size, stream=stream).text == TEXT


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "body",
    [
        '{"message": {"content": "a"}}\n{"message": {"content": "b"}, "done": true, "done_reason": "stop"}\n',
        '{"message": {"content": "ab"}, "done": true}',
        '{"message": {"content": "a"}}\r\n\r\n{"message": {"content": "b"}, "done": true}',
        'data: {"message": {"content": "a"}}\n\ndata: {"message": {"content": "b"}, "done": true}\n\n',
        '{\n "message": {\n  "content": "ab"\n },\n "done": true\n}',
        '{"response": "ab", "done": true}',
    ],
)
def test_ollamas_lines_are_read_in_whatever_form_they_come(body, stream):
    assert answer_to(body, style="ollama", stream=stream).text == "ab"


def test_halves_of_a_surrogate_pair_in_two_chunks_are_joined():
    body = sse(r'{"choices":[{"delta":{"content":"\ud83d"}}]}', r'{"choices":[{"delta":{"content":"\ude00"}}]}')
    assert answer_to(body).text == "\U0001f600"


def test_a_whole_answer_of_ollama_without_done_is_one_if_no_stream_was_asked_for():
    assert answer_to('{"message": {"content": "ab"}}', style="ollama", stream=False).text == "ab"
    with pytest.raises(LlmUnavailable, match="cut its answer off"):
        answer_to('{"message": {"content": "ab"}}', style="ollama")


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("eos", "stop"), ("stop_sequence", "stop"), ("end_turn", "stop"), ("STOP", "stop"), ("max_tokens", "length"),
        ("MAX_TOKENS", "length"), ("tool_calls", "tool_calls"), ("of_tomorrow", "of_tomorrow"), ("x" * 999, "x" * 200),
    ],
)  # fmt: skip
def test_the_reasons_to_finish_have_two_names(word, kind):
    assert answer_to(whole(content="a", finish=word)).finish_reason == kind


@pytest.mark.parametrize(
    "message",
    [
        {"reasoning_content": "hm", "content": "a"},
        {"reasoning": "hm", "content": "a"},
        {"thinking": "hm", "content": "a"},
        {"reasoning": "hm", "reasoning_content": "hm", "content": "a"},
        {"content": "<think>\nhm\n</think>\n\na"},
        {"content": "hm\n</think>\n\na"},
        {
            "content": [
                {"type": "thinking", "thinking": [{"text": "hm"}]},
                {"type": "text", "text": "a"},
            ]
        },
    ],
)
def test_reasoning_is_no_part_of_the_text(message):
    answer = answer_to(whole(**message))
    assert (answer.text, answer.reasoning) == ("a", "hm")


def test_reasoning_of_streams_is_no_part_of_the_text():
    body = sse(chunk({"reasoning_content": "h"}), chunk({"reasoning_content": "m"}), chunk({"content": "a"}, "stop"))
    assert (answer_to(body).text, answer_to(body).reasoning) == ("a", "hm")
    lines = '{"message": {"thinking": "hm", "content": ""}}\n{"message": {"content": "a"}, "done": true}'
    assert answer_to(lines, style="ollama").reasoning == "hm"


def test_wanted_tools_are_named():
    calls = [{"id": "1", "function": {"name": "search", "arguments": "{}"}}]
    assert answer_to(whole(content=None, tool_calls=calls, finish="tool_calls")).tool_calls == ("search",)
    assert answer_to(whole(content=None, function_call={"name": "find", "arguments": ""})).tool_calls == ("find",)


@pytest.mark.parametrize(
    "body",
    [
        whole(content=None, refusal="I will not"),
        sse(chunk({"refusal": "I will"}), chunk({"refusal": " not"}, "stop")),
        whole(content=[{"type": "refusal", "refusal": "I will not"}]),
    ],
)
def test_a_model_that_declines_is_quoted(body):
    with pytest.raises(LlmRefused, match="the model declines: I will not"):
        answer_to(body)


@pytest.mark.parametrize("word", ["content_filter", "SAFETY", "refusal"])
def test_a_content_filter_is_a_refusal(word):
    with pytest.raises(LlmRefused, match="content filter"):
        answer_to(whole(content="half an ans", finish=word))


ERROR = {"error": {"message": "out of memory", "code": 500}}


@pytest.mark.parametrize(
    "body",
    [
        sse(*PIECES, json.dumps(ERROR)),
        sse(*PIECES, json.dumps({"error": "out of memory"}), done=False),
        sse(*PIECES, done=False) + "event: error\ndata: out of memory\n\n",
        sse(*PIECES, done=False) + 'event: error\ndata: {"message": "out of memory"}\n\n',
        sse(*PIECES, done=False) + f"error: {json.dumps(ERROR['error'])}\n\n",
        sse(*PIECES, done=False) + json.dumps(ERROR) + "\n",
        sse(*PIECES, done=False) + f"data: {PIECES[1]}\ndata: {json.dumps(ERROR)}\n\n",
        sse(*PIECES, done=False) + "Internal Server Error: out of memory",
        json.dumps(ERROR),
        json.dumps([ERROR]),
        json.dumps({"object": "error", "message": "out of memory", "code": 500}),
        json.dumps({"choices": [{"error": {"message": "out of memory", "code": 502}}]}),
    ],
)
def test_an_error_inside_an_answer_is_one(body):
    with pytest.raises(LlmUnavailable, match="out of memory"):
        answer_to(body)


def test_an_error_event_without_data_is_an_error():
    with pytest.raises(LlmUnavailable, match="failed while it answered"):
        answer_to(sse(*PIECES, done=False) + "event: error\nid: 1\n\n")


def test_an_error_inside_an_answer_that_blames_the_request_is_not_repeated():
    with pytest.raises(LlmRefused, match="no such tool"):
        answer_to(sse(json.dumps({"error": {"message": "no such tool", "type": "invalid_request_error"}})))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("<html><head><title>Sign in</title></head></html>", r"HTML page \(Sign in\)"),
        ("<!DOCTYPE html>\n<html>\n<body>hi</body>", "HTML page"),
        ("upstream connect error", "upstream connect error"),
        ("", "nothing"),
        ("null", "null"),
        ('{"choices": [', "not a JSON object"),
        ("data: nonsense\n\n", "nonsense"),
        ("{}", "no answer"),
        ('{"choices": []}', "no answer"),
        ('{"choices": [{"message": {"content": null}}]}', "no answer"),
        (sse(), "no answer"),
        (sse(json.dumps({"choices": [], "usage": {"prompt_tokens": 3}})), "no answer"),
        ('{"a": ' * 5000, "not a JSON object"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_what_is_no_answer_is_bad_output(body, words, stream):
    with pytest.raises((BadLlmOutput, LlmUnavailable), match=words):
        answer_to(body, stream=stream)


@pytest.mark.parametrize("style", STYLES)
def test_a_stream_that_stops_in_the_middle_is_cut_off(style):
    body = sse(*PIECES, done=False) if style == "openai" else '{"message": {"content": "a"}, "done": false}\n'
    with pytest.raises(LlmUnavailable, match="cut its answer off"):
        answer_to(body, style=style)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("body", ["x" * 10**7, "data: " + "x" * 10**7, "{" * 10**7, "data: x\n" * 500_000])
def test_what_is_too_long_is_given_up(style, body):
    with pytest.raises((BadLlmOutput, LlmUnavailable)):
        answer_to(body, style=style, size=65_536)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": 400, "message": "request (3015 tokens) exceeds the available context size (1024 tokens), try"
                   " increasing it", "type": "exceed_context_size_error", "n_ctx": 1024}},
        {"error": json.dumps({"error": {"code": 400, "message": "request (9 tokens) exceeds the available context size"
                              " (8 tokens)", "type": "exceed_context_size_error"}})},
        {"error": {"message": "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens.",
                   "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}},
        {"object": "error", "message": "This model's maximum context length is 4096 tokens. However, you requested 5000"
         " tokens in the messages, Please reduce the length of the messages.", "type": "BadRequestError", "code": 400},
        {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs`"},
        {"error": {"message": "prompt is too long: 210000 tokens > 200000 maximum", "type": "invalid_request_error"}},
        [{"error": {"code": 400, "message": "The input token count (1300000) exceeds the maximum number of tokens",
                    "status": "INVALID_ARGUMENT"}}],
        {"message": "Prompt contains 33000 tokens, too large for model with 32768 maximum context length"},
        {"error": "the input length exceeds the context length"},
        {"error": "The number of tokens to keep from the initial prompt is greater than the context length."},
    ],
)  # fmt: skip
@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_a_context_overflow_is_one_in_all_its_wordings(body, status):
    with pytest.raises(PayloadTooLarge, match="does not fit the model's context") as caught:
        answer_to(json.dumps(body), status=status)
    assert not caught.value.retryable


def test_a_limit_of_tokens_per_minute_is_no_context_overflow():
    words = "Request too large for gpt on tokens per minute (TPM): Limit 30000, too many tokens. Try again in 2s."
    with pytest.raises(LlmUnavailable) as caught:
        answer_to(json.dumps({"error": {"message": words, "code": "rate_limit_exceeded"}}), status=429)
    assert caught.value.retry_after == 2


def test_a_key_is_hidden_before_a_message_is_cut():
    message = "x" * 290 + " sk-very-secret-key-of-mine"
    with pytest.raises(LlmRefused) as caught:
        answer_to(json.dumps({"error": {"message": message}}), status=401, api_key="sk-very-secret-key-of-mine")
    assert "sk-" not in str(caught.value)
