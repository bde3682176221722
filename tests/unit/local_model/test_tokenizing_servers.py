"""Servers that tokenize: llama-server, vLLM and TEI, each with its own routes and forms, around the real tokenizer."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from citadel_common.deadline import Deadline
from citadel_common.errors import BackendRefused, BackendUnavailable, InvalidInput
from citadel_common.settings.embeddings import BackendSettings
from citadel_embeddings.backends.openai import OpenAIBackend
from citadel_embeddings.tokens import ModelTokens

SENTENCE = "the quick brown fox jumps over the lazy dog"
Answer = tuple[int, Any]


def llama(pieces: Any, path: str, body: Any) -> Answer:
    """Answer as llama-server does."""
    if path == "/tokenize":
        return 200, {"tokens": pieces.encode(body["content"], special=body.get("add_special", False))}
    if path != "/detokenize":
        return 404, {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}}
    if max(body["tokens"], default=0) >= 30522:
        return 500, {"error": {"code": 500, "message": "vector::_M_range_check", "type": "server_error"}}
    return 200, {"content": f" {pieces.decode(body['tokens'])}"}


def vllm(pieces: Any, path: str, body: Any) -> Answer:
    """Answer as vLLM does."""
    if path == "/tokenize":
        ids = pieces.encode(body["prompt"], special=body.get("add_special_tokens", True))
        return 200, {"count": len(ids), "max_model_len": 256, "tokens": ids}
    if path != "/detokenize":
        return 404, {"detail": "Not Found"}
    if max(body["tokens"], default=0) >= 30522:
        return 400, {"error": {"message": "Token id 30522 is out of vocabulary", "type": "BadRequestError"}}
    return 200, {"prompt": pieces.decode(body["tokens"])}


def tei(pieces: Any, path: str, body: Any) -> Answer:
    """Answer as TEI does."""
    if path == "/tokenize":
        ids = pieces.encode(body["inputs"], special=body.get("add_special_tokens", True))
        return 200, [[{"id": id_, "text": "?", "special": False, "start": 0, "stop": 1} for id_ in ids]]
    if path != "/decode":
        return 404, {}
    if max(body["ids"], default=0) >= 30522:
        return 422, {"error": "Tokenization error", "error_type": "Tokenizer"}
    return 200, [pieces.decode(body["ids"])]


def litellm(_pieces: Any, _path: str, _body: Any) -> Answer:
    """Answer as a gateway that does not tokenize."""
    return 404, {"detail": "Not Found"}


SERVERS = (llama, vllm, tei)


def with_server(answer: Callable[[str, Any], Answer], work: Callable[[ModelTokens], Awaitable[Any]]) -> Any:
    """Return what `work` returns with the tokenizer of a server that answers so."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(int(line.split(":")[1]) for line in head.split("\r\n") if line.lower().startswith("content-len"))
        status, content = answer(head.split(" ")[1], json.loads(await reader.readexactly(length)))
        body = json.dumps(content).encode()
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (status, len(body), body))
        await writer.drain()
        writer.close()

    async def run() -> Any:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        backend = OpenAIBackend(BackendSettings(kind="openai", urls=[url]))
        try:
            tokenizer = backend.tokenizer(url, "all-minilm")
            return await work(ModelTokens(model="all-minilm", tokenizers=[tokenizer], deadline=Deadline.after(30)))
        finally:
            await backend.aclose()
            server.close()

    return asyncio.run(run())


@pytest.mark.parametrize("server", SERVERS)
def test_ids_become_the_text_and_others_are_refused(server, model):
    pieces = model.pieces

    async def work(tokens: ModelTokens) -> None:
        for special in (False, True):
            assert await tokens.texts_of([pieces.encode(SENTENCE, special=special)], "") == [SENTENCE]
        for bad in ([30522, *range(2000, 2010)], [11, 279, 374, 11, 13, 12, 279, 374]):
            with pytest.raises(InvalidInput, match="check_embedding_ctx_length=False"):
                await tokens.texts_of([bad], "")

    with_server(lambda path, body: server(pieces, path, body), work)


@pytest.mark.parametrize("server", SERVERS)
def test_texts_are_cut_by_the_servers_tokens(server, model):
    async def work(tokens: ModelTokens) -> Any:
        return await tokens.cut([f"{SENTENCE}. " * 10, SENTENCE], "", 12, start=True)

    found, cut = with_server(lambda path, body: server(model.pieces, path, body), work)
    assert cut == {0}
    assert len(model.pieces.encode(found[0], special=True)) == 12


def test_a_gateway_that_does_not_tokenize_is_not_one_that_fails(model):
    def asked(answer: Answer) -> Callable[[str, Any], Answer]:
        return lambda _path, _body: answer

    async def work(tokens: ModelTokens) -> Any:
        return await tokens.texts_of([model.pieces.encode(SENTENCE, special=True)], "")

    for answer in (litellm(None, "", None), (405, {}), (200, {"unexpected": 1}), (200, "tokens"), (200, [[]])):
        with pytest.raises(InvalidInput, match="is not at hand"):
            with_server(asked(answer), work)
    with pytest.raises(BackendUnavailable):
        with_server(asked((503, {})), work)
    with pytest.raises(BackendRefused):
        with_server(asked((401, {})), work)
