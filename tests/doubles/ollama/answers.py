"""Bodies of embedding answers, in the forms of Ollama and OpenAI."""

from binascii import b2a_base64
from collections.abc import Sequence

import orjson

from tests.doubles.ollama.requests import EmbedRequest
from tests.doubles.ollama.vectors import Flaw, as_bytes, as_json


def encode_vector(request: EmbedRequest, text: str, flaw: Flaw | None) -> bytes:
    """Return a text's vector as the JSON value that the request asks for."""
    if not request.base64:
        return as_json(request.spec, text, request.dimensions, flaw)
    return b'"' + b2a_base64(as_bytes(request.spec, text, request.dimensions, flaw), newline=False) + b'"'


def ollama_body(request: EmbedRequest, vectors: Sequence[bytes], tokens: int, total_ns: int, load_ns: int) -> bytes:
    """Return the body of `POST /api/embed`; without texts it is model and embeddings only."""
    head = b'{"model":%b,"embeddings":[%b]' % (orjson.dumps(request.model), b",".join(vectors))
    if not request.texts:
        return head + b"}"
    counts = (total_ns, load_ns, tokens)
    return head + b',"total_duration":%d,"load_duration":%d,"prompt_eval_count":%d}' % counts


def openai_body(request: EmbedRequest, vectors: Sequence[bytes], tokens: int, *, shuffled: bool) -> bytes:
    """Return the body of `POST /v1/embeddings`."""
    items = [
        b'{"object":"embedding","embedding":%b,"index":%d}' % (vector, index) for index, vector in enumerate(vectors)
    ]
    if shuffled:
        items.reverse()
    usage = b'{"prompt_tokens":%d,"total_tokens":%d}' % (tokens, tokens)
    parts = (b",".join(items), orjson.dumps(request.model), usage)
    return b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % parts
