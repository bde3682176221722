"""Ten thousand answers of a Qdrant that may say anything: each is a result or a documented error."""

import asyncio
import gc
import json
import random

import httpx
import orjson
import pytest

from citadel_common.errors import CitadelError, Conflict, NotFound, VectorStoreRefused, VectorStoreUnavailable
from citadel_common.settings.qdrant import QdrantSettings
from citadel_orchestration.vectors.points import Point
from citadel_orchestration.vectors.store import VectorStore

ANSWERS = 10_000
SEED = 20261128
INFO = {
    "status": "green",
    "optimizer_status": "ok",
    "segments_count": 1,
    "indexed_vectors_count": 0,
    "points_count": 1,
    "config": {
        "params": {"vectors": {"size": 2, "distance": "Euclid"}, "shard_number": 1},
        "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000, "max_indexing_threads": 0},
        "optimizer_config": {
            "deleted_threshold": 0.2,
            "vacuum_min_vector_number": 1000,
            "default_segment_number": 0,
            "flush_interval_sec": 5,
        },
    },
    "payload_schema": {},
}
POINT = {"id": 1, "version": 1, "score": 0.5, "payload": {"a": [1, {"b": None}]}}
ODD = [
    None, True, 0, -1, 1.5, 1e308, 2**64, -(2**63) - 1, "", "x", "\x00", "\ud800", [], {}, [[]], {"": None}, "é" * 600,
]  # fmt: skip
TEXTS = [b"", b"null", b"[]", b"<html>", b"\xff\xfe", b"{", b"1" * 5000, b"[" * 3000, b'{"a":1,"a":2}', b"NaN"]
STATUSES = [200] * 10 + [201, 202, 204, 301, 400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 501, 502, 503, 504, 599]
DELAYS = ["1", "0", "-5", "soon", "1e9", "Wed, 21 Oct 2026 07:28:00 GMT"]
FAILURES = [
    httpx.ConnectError,
    httpx.ReadError,
    httpx.RemoteProtocolError,
    httpx.ReadTimeout,
    httpx.PoolTimeout,
    httpx.DecodingError,
    httpx.TooManyRedirects,
]
DOCUMENTED = (VectorStoreUnavailable, VectorStoreRefused, NotFound, Conflict)


class Liar(httpx.AsyncBaseTransport):
    """A server whose answers are those of Qdrant, mutated."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.answers = 0

    async def handle_async_request(self, request):
        """Answer anything, or fail."""
        self.answers += 1
        if self.random.random() < 0.05:
            raise self.random.choice(FAILURES)("on the wire")
        headers = {"content-type": "application/json"}
        if self.random.random() < 0.3:
            headers["retry-after"] = self.random.choice(
                ["1", "0", "-5", "soon", "1e9", "Wed, 21 Oct 2026 07:28:00 GMT"]
            )
        return httpx.Response(
            self.random.choice(STATUSES), headers=headers, content=self._body(request.method, request.url.path)
        )

    def _body(self, method, path):
        if self.random.random() < 0.15:
            return self.random.choice(TEXTS)
        if self.random.random() < 0.3:
            return json.dumps(self._mutated({"status": {"error": self._words()}, "time": 0.1})).encode()
        found = self._mutated({"result": _result(method, path), "status": "ok", "time": 0.1})
        return json.dumps(found).encode()

    def _words(self):
        return self.random.choice(
            [
                "Not found: Collection `docs` doesn't exist!",
                "Wrong input: Collection `docs` already exists!",
                "Wrong input: Vector dimension error: expected dim: 2, got 3",
                "expected dim: " + "9" * 5000 + ", got 3",
                "x" * 10_000,
                "\x00\ud800",
            ]
        )

    def _mutated(self, value):
        """Return a value with some of its parts replaced, removed or doubled."""
        if self.random.random() < 0.04:
            return self.random.choice(ODD)
        if isinstance(value, dict):
            kept = {key: self._mutated(each) for key, each in value.items() if self.random.random() > 0.02}
            return kept | ({"new": 1} if self.random.random() < 0.05 else {})
        if isinstance(value, list):
            return [self._mutated(each) for each in value] * self.random.choice([1, 1, 1, 0, 2])
        return value


def _result(method, path):
    if path == "/collections":
        return {"collections": [{"name": "docs"}, {"name": "a/b"}]}
    if path.endswith("/points/query"):
        return {"points": [POINT, POINT | {"id": "550e8400-e29b-41d4-a716-446655440000"}]}
    if path.endswith("/points"):
        return {"operation_id": 0, "status": "completed"}
    return True if method == "PUT" else INFO


async def store_of(transport):
    """Return a store that talks to a transport, and the calls to make of it."""
    store = VectorStore(QdrantSettings(url="http://qdrant.invalid", patience=0))
    connection = await store._open()
    http = connection._client.http.client._async_client
    http._transport, http._mounts = transport, {}
    connection._probe._transport, connection._probe._mounts = transport, {}
    return store


CALLS = [
    lambda store: store.search("docs", [1.0, 0.0]),
    lambda store: store.search("docs", [1.0, 0.0], conditions={"a": 1}, score_threshold=0.5, vector_name="x"),
    lambda store: store.upsert("docs", [Point(id=1, vector=[1.0, 0.0])]),
    lambda store: store.collections(),
]


async def outcome(store, call):
    """Return what a call ends in; the breaker, whose pauses are another test's, is closed after it."""
    try:
        return await call(store)
    except CitadelError as error:
        return error
    finally:
        store._server.answers()


@pytest.fixture
def liar():
    return Liar(SEED)


def test_every_answer_ends_in_a_result_or_a_documented_error_and_memory_stays_flat(liar):
    async def story():
        store = await store_of(liar)
        seen, sizes = set(), []
        while liar.answers < ANSWERS:
            store._known.clear()
            found = await outcome(store, CALLS[liar.answers % len(CALLS)])
            seen.add(type(found))
            assert not isinstance(found, CitadelError) or len(found.message) < 1000
            if liar.answers // 2000 > len(sizes):
                gc.collect()
                sizes.append(len(gc.get_objects()))
        await store.aclose()
        return seen, sizes

    seen, sizes = asyncio.run(story())
    assert seen == {list, int, dict, *DOCUMENTED}
    assert sizes[-1] - sizes[0] < 500


def test_what_an_error_says_can_be_stored_and_sent(liar):
    async def story():
        store = await store_of(liar)
        errors = [await outcome(store, CALLS[n % len(CALLS)]) for n in range(2000)]
        await store.aclose()
        return [error for error in errors if isinstance(error, CitadelError)]

    for error in asyncio.run(story()):
        assert orjson.dumps(error.data.model_dump())
