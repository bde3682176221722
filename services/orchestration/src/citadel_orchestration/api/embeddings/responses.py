"""OpenAI's embeddings response, put together from vectors that are JSON already."""

from collections.abc import Sequence
from typing import NamedTuple

import orjson

from citadel_common.embeddings.vectors import Vector, from_base64, to_base64
from citadel_contracts.embeddings import EncodingFormat


class Piece(NamedTuple):
    """One text's part of the response: its vector as JSON, and whether the text was cut to the model's context."""

    fragment: bytes
    truncated: bool


def fragment_of(vector: Vector, encoding: EncodingFormat) -> bytes:
    """A vector as JSON: an array of numbers, or a base64 string."""
    if encoding == "base64":
        return b'"' + to_base64(vector).encode() + b'"'
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY)


def fragment_of_base64(text: str, encoding: EncodingFormat) -> bytes:
    """The same from the form in which workers send vectors."""
    return b'"' + text.encode() + b'"' if encoding == "base64" else fragment_of(from_base64(text), encoding)


def openai_answer(pieces: Sequence[Piece], *, model: str, tokens: int = 0, cache_hits: int) -> bytes:
    """The response's body; piece i belongs to text i."""
    vectors = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%b}' % (index, piece.fragment)
        for index, piece in enumerate(pieces)
    )
    rest = orjson.dumps(
        {
            "model": model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "citadel": {
                "cache_hits": cache_hits,
                "truncated": [index for index, piece in enumerate(pieces) if piece.truncated],
            },
        }
    )
    return b'{"object":"list","data":[%b],%b' % (vectors, rest[1:])
