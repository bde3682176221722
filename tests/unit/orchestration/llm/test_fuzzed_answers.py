"""Ten thousand broken answers: each ends as an answer or as a documented error, in bounded time and memory.

The answers are mutations of what a llama-server and an Ollama have sent.
"""

import asyncio
import gc
import json
import random

import httpx
import orjson
import pytest

from citadel_common.deadline import Deadline
from citadel_common.errors import BadLlmOutput, LlmRefused, LlmUnavailable, PayloadTooLarge
from citadel_orchestration.llm.output_schema import OutputSchema
from citadel_orchestration.llm.question import Answer
from citadel_orchestration.steps.llm_query import _read
from tests.unit.orchestration.llm.answering import endpoint, question

MANY = 10_000
SEED = 20_261_128
DOCUMENTED = (LlmUnavailable, LlmRefused, BadLlmOutput, PayloadTooLarge)
HEAD = '"created":1795841164,"id":"chatcmpl-U4y9","model":"tiny-llm","system_fingerprint":"b1-0c1e570"'
CHUNK = "data: {" + HEAD + ',"object":"chat.completion.chunk","choices":[%s]%s}\n\n'
STREAM = "".join(
    CHUNK % parts
    for parts in [
        ('{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}', ""),
        ('{"finish_reason":null,"index":0,"delta":{"content":" Після"}}', ""),
        ('{"finish_reason":null,"index":0,"delta":{"reasoning_content":"oor"}}', ""),
        ('{"finish_reason":"length","index":0,"delta":{}}', ""),
        ("", ',"usage":{"completion_tokens":3,"prompt_tokens":15,"total_tokens":18},"timings":{"prompt_ms":0.5}'),
    ]
)
CHOICE = r'{"finish_reason":"stop","index":0,"message":{"role":"assistant","content":"{\"a\" :2 }"}}'
TOO_LONG = '"message":"request (3015 tokens) exceeds the available context size","type":"exceed_context_size_error"'
LINE = '{"model":"llm-tiny","created_at":"2026-11-28T04:46:05Z","message":{"content":"%s"},"done":%s}\n'
SHAPES = [
    f"{STREAM}data: [DONE]\n\n",
    f'{{{HEAD},"object":"chat.completion","choices":[{CHOICE}],"usage":{{"completion_tokens":14,"prompt_tokens":15}}}}',
    f'{{"error":{{"code":400,{TOO_LONG},"n_prompt_tokens":3015,"n_ctx":1024}}}}',
    LINE % (" себя", "false") + LINE % ("", 'true,"done_reason":"length","prompt_eval_count":15,"eval_count":3'),
    LINE % (r"<think>x</think>{\"a\":1}", "true"),
    json.dumps({"error": json.dumps({"error": {"code": 400, "message": "no", "type": "x"}})}),
    "<html><head><title>502 Bad Gateway</title></head></html>",
    'event: error\ndata: {"error":{"message":"overloaded","type":"overloaded_error","code":529}}\n\n',
]
GOOD = [SHAPES[0], SHAPES[1], SHAPES[3], SHAPES[4]]
TOKENS = [
    b"null", b"true", b"-1", b"1e999", b"NaN", b"9" * 30, b'""', b'"\\u0000"', b'"\\ud800"', b"[]", b"{}", b"[" * 300,
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n", b"\n\n", b"\r", b"data: ", b": ping\n\n", b"event: error\n",
    b"[DONE]", b'"error":"x",', b"<think>", b"</think>", b"```", b"\xf0\x9f\x98", b'"done":true,', b'"choices":[],',
]  # fmt: skip
TEXTS = [rb"\ud800", rb"\u0000", rb"\u001b[2J", b"<think>", rb"</think>\n", rb"```json\n", rb"{\"b\":[1e999]}", b"\xff"]
HEADERS = ["retry-after", "retry-after-ms", "x-ratelimit-reset-tokens", "content-type"]
VALUES = ["1", "6m0s", "inf", "-1", "\x80", "soon", "Wed, 21 Oct 2015 07:28:00 GMT", "text/event-stream", ""]
STATUSES = [200] * 40 + [204, 301, 400, 401, 404, 413, 422, 429, 500, 502, 503, 529, 599]


def mutated(body, rng):
    """A body with some bytes and parts changed, doubled, cut out or put in."""
    if rng.random() < 0.3:
        body = body.replace(b'"content":"', b'"content":"' + rng.choice(TEXTS))
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        at, length = rng.randrange(len(body) + 1), rng.randrange(1, 40)
        part = body[at : at + length]
        new = rng.choice([b"", part * 2, bytes([rng.randrange(256)]), rng.choice(TOKENS), rng.choice(SHAPES).encode()])
        body = body[:at] + new + body[at + rng.choice([0, length]) :]
    return body[: rng.randrange(len(body) + 1)] if rng.random() < 0.1 else body


def fuzzed(rng):
    """A response with a mutated body."""
    body, size = mutated(rng.choice(SHAPES + GOOD * 3).encode(), rng), rng.choice([1, 61, 61, 4096, 4096, 4096])

    async def chunks():
        for start in range(0, len(body), size):
            yield body[start : start + size]
        if rng.random() < 0.05:
            raise httpx.ReadError("reset")

    headers = [(rng.choice(HEADERS).encode(), rng.choice(VALUES).encode("latin-1"))]
    return httpx.Response(rng.choice(STATUSES), headers=headers, content=chunks())


async def outcome(asked, question_):
    asked._cooldown._ends_at = 0.0
    asked._server.answers()  # else the breaker would spare it most of the answers
    try:
        return await asked.ask(question_, Deadline.after(20), lambda: None)
    except DOCUMENTED as error:
        return error


async def outcomes(count, style, rng):
    """The kinds of outcomes of many answers, and how many objects stay; each outcome can be stored and shown."""
    schema, kinds, before = OutputSchema({"type": "object"}), {}, 0
    asked = endpoint(lambda _: fuzzed(rng), style=style)
    for number in range(count):
        found = await outcome(asked, question(options={"temperature": 1, "max_tokens": 9}))
        if isinstance(found, Answer):
            value, _ = _read(found, schema)
            orjson.dumps([found.text, found.reasoning, found.model, found.finish_reason, found.usage, value])
        else:
            assert len(orjson.dumps(found.data.model_dump())) < 20_000
        kinds[type(found).__name__] = kinds.get(type(found).__name__, 0) + 1
        if number == count // 2:
            gc.collect()
            before = len(gc.get_objects())
    gc.collect()
    return kinds, len(gc.get_objects()) - before


@pytest.mark.parametrize("style", ["openai", "ollama"])
def test_every_broken_answer_ends_as_an_answer_or_a_documented_error(style):
    kinds, grown = asyncio.run(outcomes(MANY // 2, style, random.Random(SEED)))
    assert sum(kinds.values()) == MANY // 2
    assert kinds.keys() == {"Answer", "LlmUnavailable", "LlmRefused", "BadLlmOutput", "PayloadTooLarge"}
    assert kinds["Answer"] > MANY // 25
    assert grown < 1000
