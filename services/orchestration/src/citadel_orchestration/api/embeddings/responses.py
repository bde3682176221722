"""Response bodies of OpenAI's embeddings route: put together from vectors that are JSON already, kept in memory."""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import orjson

from citadel_common.embeddings.vectors import Vector, from_base64, to_base64
from citadel_contracts.embeddings import EncodingFormat

_ENTRY_OVERHEAD = 300
"""Bytes of memory per cache entry besides key and vector."""


class EncodedVector(NamedTuple):
    """One text's vector as JSON, and whether the text was truncated to the model's context."""

    json: bytes
    truncated: bool


def encode(vector: Vector, encoding: EncodingFormat) -> bytes:
    """Return a vector as JSON: an array of numbers, or a base64 string."""
    if encoding == "base64":
        return b'"' + to_base64(vector).encode() + b'"'
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY)


def encode_base64(text: str, encoding: EncodingFormat) -> bytes:
    """Return a vector as JSON, given in base64 as workers send it."""
    return b'"' + text.encode() + b'"' if encoding == "base64" else encode(from_base64(text), encoding)


def openai_body(vectors: Sequence[EncodedVector], *, model: str, tokens: int = 0, cache_hits: int) -> bytes:
    """Return the body of a response; vector i belongs to text i."""
    data = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%b}' % (index, vector.json)
        for index, vector in enumerate(vectors)
    )
    rest = orjson.dumps(
        {
            "model": model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "citadel": {
                "cache_hits": cache_hits,
                "truncated": [index for index, vector in enumerate(vectors) if vector.truncated],
            },
        }
    )
    return b'{"object":"list","data":[%b],%b' % (data, rest[1:])


class MemoryCache:
    """Encoded vectors in the memory of this process, bounded by bytes; the least recently used are evicted first.

    A key contains all that a vector depends on, so no entry is ever wrong. Entries expire all the same: Redis should
    see which vectors are in use, and a cache cleared there should soon be empty here.

    Args:
        max_bytes: Memory of all entries; 0 keeps none.
        ttl: Seconds that an entry is kept.
        clock: Returns the time in seconds.
    """

    def __init__(self, *, max_bytes: int, ttl: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._clock = clock
        self._entries: OrderedDict[str, tuple[EncodedVector, float]] = OrderedDict()
        self._bytes = 0

    def get(self, key: str) -> EncodedVector | None:
        """Return a vector; None if there is none, or it has expired."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[1] < self._clock():
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: str, vector: EncodedVector) -> None:
        """Keep a vector."""
        self._remove(key)
        self._entries[key] = (vector, self._clock() + self._ttl)
        self._bytes += _size(key, vector)
        while self._bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))

    def _remove(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= _size(key, entry[0])


def _size(key: str, vector: EncodedVector) -> int:
    return len(key) + len(vector.json) + _ENTRY_OVERHEAD
