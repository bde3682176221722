"""Servers of the OpenAI protocol that know less of it, and how each says that a text is too long."""

import asyncio
import base64
import contextlib
import json

import numpy as np
import pytest

from citadel_common.settings.embeddings import BackendSettings
from citadel_embeddings.backends.base import EmbedCall, ServerFailed, TextTooLong
from citadel_embeddings.backends.openai import OpenAIBackend

VECTOR = np.array([0.6, 0.8, 0.0], dtype="<f4")


class Server:
    """A server that answers a request with the status and body that a function gives."""

    def __init__(self, answer):
        self.answer, self.requests = answer, []

    async def serve(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError), contextlib.closing(writer):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                status, content = self._answered(json.loads(await reader.readexactly(length)))
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%s" % (status, len(content), content))
                await writer.drain()

    def _answered(self, request):
        self.requests.append(request)
        status, body = self.answer(request)
        return status, json.dumps(body).encode()

    def ask(self, *calls):
        """Make calls one after the other by one backend; return their replies."""

        async def run():
            server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            backend = OpenAIBackend(BackendSettings(kind="openai", urls=[url]))
            try:
                return [await backend.embed(url, call, timeout=30) for call in calls]
            finally:
                await backend.aclose()
                server.close()
                await asyncio.gather(*(task for task in asyncio.all_tasks() if task is not asyncio.current_task()))

        return asyncio.run(run())


def rows(request, encode):
    return 200, {"data": [{"index": index, "embedding": encode(VECTOR)} for index, _ in enumerate(request["input"])]}


def floats(request):
    return rows(request, np.ndarray.tolist)


def in_base64(request, dtype="<f4"):
    return rows(request, lambda vector: base64.b64encode(vector.astype(dtype).tobytes()).decode())


def refusing(status, message):
    def answer(request):
        if request.get("encoding_format") == "base64":
            return status, {"error": {"message": message}}
        return floats(request)

    return answer


def garbled(request):
    return floats(request) if "encoding_format" not in request else rows(request, lambda _: "not base64!")


def doubles(request):
    return floats(request) if "encoding_format" not in request else in_base64(request, "<f8")


@pytest.mark.parametrize(
    ("answer", "again"),
    [
        (refusing(400, "encoding_format must be 'float'"), 1),
        (refusing(422, "Extra inputs are not permitted"), 1),
        (refusing(500, "Object of type bytes is not JSON serializable"), 1),
        (refusing(415, "base64 is not supported"), 1),
        (garbled, 1),
        (doubles, 1),
        (floats, 0),
    ],
)
def test_a_server_without_base64_is_asked_for_floats_and_remembered(answer, again):
    server = Server(answer)
    call = EmbedCall(model="m", texts=["a", "b"], size=3)
    for reply in server.ask(call, call):
        np.testing.assert_allclose(np.array(reply.rows, dtype="f4"), [VECTOR, VECTOR])
    forms = [request.get("encoding_format") for request in server.requests]
    assert forms == ["base64", *[None] * (again + 1)]


def test_a_server_with_base64_is_asked_for_nothing_else():
    server = Server(in_base64)
    call = EmbedCall(model="m", texts=["a"], size=3)
    for reply in server.ask(call, call):
        np.testing.assert_allclose(reply.rows[0], VECTOR)
    assert [request["encoding_format"] for request in server.requests] == ["base64"] * 2


TOO_LONG = [
    # OpenAI
    (400, {"error": {"message": "This model's maximum context length is 8192 tokens, however you requested 9000 tokens "
     "(9000 in your prompt; 0 for the completion). Please reduce your prompt; or completion length.",
     "type": "invalid_request_error", "param": None, "code": None}}, 8192, 9000),
    (400, {"error": {"message": "Invalid 'input': maximum context length is 8192 tokens.",
     "code": "context_length_exceeded"}}, 8192, None),
    # vLLM
    (400, {"object": "error", "message": "This model's maximum context length is 512 tokens. However, you requested "
     "3002 tokens in the input for embedding generation. Please reduce the length of the input.",
     "type": "BadRequestError", "param": None, "code": 400}, 512, 3002),
    # TEI
    (413, {"error": "Input validation error: `inputs` must have less than 512 tokens. Given: 3002",
     "error_type": "Validation", "message": "Input validation error: `inputs` must have less than 512 tokens. "
     "Given: 3002", "type": "Validation"}, 512, 3002),
    # llama-server
    (500, {"error": {"code": 500, "message": "input (3002 tokens) is too large to process. increase the physical batch "
     "size (current batch size: 512)", "type": "server_error"}}, 512, 3002),
    (400, {"error": {"code": 400, "message": "request (3002 tokens) exceeds the available context size (512 tokens)",
     "type": "exceed_context_size_error", "n_prompt_tokens": 3002, "n_ctx": 512}}, 512, 3002),
    # LiteLLM
    (400, {"error": {"message": "litellm.ContextWindowExceededError: This model's maximum context length is 512 tokens",
     "type": None, "param": None, "code": "400"}}, 512, None),
    # Ollama at /v1
    (400, {"error": {"message": "the input length exceeds the context length", "type": "invalid_request_error"}},
     None, None),
    # a proxy before the server
    (413, {}, None, None),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "limit", "tokens"), TOO_LONG)
def test_a_text_that_is_too_long_is_known_by_each_servers_words(status, body, limit, tokens):
    server = Server(lambda _: (status, body))
    with pytest.raises(TextTooLong) as refused:
        server.ask(EmbedCall(model="m", texts=["a"]))
    assert (refused.value.limit, refused.value.tokens) == (limit, tokens)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "message",
    ["CUDA out of memory", "maximum number of retries", "the server is too busy", "internal error in tokenizer"],
)
def test_other_failures_are_not_taken_for_a_long_text(message):
    server = Server(lambda _: (500, {"error": {"message": message}}))
    with pytest.raises(ServerFailed):
        server.ask(EmbedCall(model="m", texts=["a"]))
