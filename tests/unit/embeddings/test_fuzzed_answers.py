"""10,000 answers that no server should give: each ends in vectors or in a documented error, and memory stays flat."""

import asyncio
import base64
import contextlib
import gc
import gzip
import json
import random
import struct

import psutil
import pytest
import uvloop

from citadel_common.deadline import Deadline
from citadel_common.errors import CitadelError
from citadel_common.settings.embeddings import BackendSettings
from citadel_contracts import Lane
from citadel_contracts.errors import KINDS
from citadel_embeddings.backends.ollama import OllamaBackend
from citadel_embeddings.backends.openai import OpenAIBackend
from citadel_embeddings.endpoints.call import call_backend
from citadel_embeddings.items import Batch, BatchKey, Item

ANSWERS, SEED, SIZE, MOST_GROWTH = 5000, 20261128, 8, 60 << 20
"""Vectors asked for by each protocol, the seed, dimensions, and bytes that the process may grow meanwhile."""
ODD = [
    None,
    "",
    "NaN",
    "1",
    -1,
    0,
    1e999,
    float("nan"),
    1e39,
    10**400,
    True,
    [],
    {},
    [[1.0] * SIZE],
    {"a": 1},
    "ä\u0000",
]
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
BOMB = gzip.compress(b" " * (80 << 20))
STATUSES = [200] * 12 + [201, 204, 302, 400, 401, 404, 413, 422, 424, 429, 500, 501, 502, 503, 504, 529]
WORDS = [
    "too long",
    "context length 512",
    "must have less than 8 tokens",
    "encoding_format",
    "dimensions",
    "\ud800?",
    "",
]


USUAL = {"vector", "bad_vector", "backend_failed", "backend_unavailable", "text_rejected", "text_too_long"}


class Fuzzer:
    """Answers that grow from good ones by mutations."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.has_bombed = False

    def answer(self, kind, request):
        """Return the bytes of one answer, and whether the connection stays open after it."""
        texts = request.get("input") or []
        body = self.body(kind, texts, in_base64=request.get("encoding_format") == "base64")
        status = self.random.choice(STATUSES)
        if status != 200 and self.random.random() < 0.8:
            body = self.refusal()
        return self.wire(status, self.spoiled(json.dumps(body).encode()))

    def listing(self):
        """Return the bytes of a list of models, and whether the connection stays open after it."""
        entries = [{"name": "m:latest", "digest": "sha256:ab", "id": "m"} for _ in range(2)]
        if self.random.random() < 0.5:
            entries[0][self.random.choice(list(entries[0]))] = self.random.choice(ODD)
        if self.random.random() < 0.3:
            entries[1] = self.random.choice(ODD)
        return self.wire(
            self.random.choice(STATUSES),
            self.spoiled(json.dumps(self.mutated({"models": entries, "data": entries})).encode()),
        )

    def body(self, kind, texts, *, in_base64):
        rows = [[self.random.uniform(-1, 1) for _ in range(SIZE)] for _ in texts]
        for _ in range(self.random.choice([0, 0, 1, 2])):
            self.mutate_rows(rows)
        if kind == "ollama":
            return self.mutated({"model": "m", "embeddings": rows, "prompt_eval_count": len(rows), "load_duration": 1})
        encoded = [self.encode(row) if in_base64 else row for row in rows]
        data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(encoded)]
        if data and self.random.random() < 0.3:
            self.mutate_items(data)
        return self.mutated({"object": "list", "data": data, "usage": {"prompt_tokens": 3}})

    def mutate_rows(self, rows):
        if not rows:
            return
        row = self.random.randrange(len(rows))
        match self.random.randrange(7):
            case 0:
                rows.pop(row)
            case 1:
                rows.append(rows[row])
            case 2:
                rows[row] = self.random.choice(ODD)
            case 3 if isinstance(rows[row], list) and rows[row]:
                rows[row][0] = self.random.choice(ODD)
            case 4 if isinstance(rows[row], list):
                rows[row] = rows[row][: self.random.randrange(SIZE)]
            case 5 if isinstance(rows[row], list):
                rows[row] = rows[row] * self.random.choice([2, 1000])
            case _:
                self.random.shuffle(rows)

    def mutate_items(self, data):
        item = self.random.choice(data)
        match self.random.randrange(4):
            case 0:
                item["index"] = self.random.choice([*ODD, 0, 7, "0"])
            case 1:
                item.pop("index")
            case 2:
                item.pop("embedding")
            case _:
                data[0] = self.random.choice(ODD)

    def mutated(self, body):
        if self.random.random() < 0.2:
            body[self.random.choice(list(body))] = self.random.choice(ODD)
        return self.random.choice(ODD) if self.random.random() < 0.03 else body

    def encode(self, row):
        try:
            packed = struct.pack(f"<{len(row)}{self.random.choice('ffffffd')}", *row)
        except (struct.error, TypeError, OverflowError):
            return row
        text = base64.b64encode(packed).decode()
        return text[: self.random.randrange(len(text) + 1)] if self.random.random() < 0.1 else text

    def refusal(self):
        words = self.random.choice(WORDS)
        return self.random.choice(
            [{"error": words}, {"error": {"message": words, "code": self.random.choice(ODD)}}, {"detail": [words]}, ODD]
        )

    def spoiled(self, body):
        match self.random.randrange(24):
            case 0:
                return body[: self.random.randrange(len(body) + 1)]
            case 1:
                return b"<html><body>welcome</body></html>"
            case 2:
                return b"[" * 3000
            case 3:
                return bytes(self.random.randrange(256) for _ in range(40))
            case 4:
                return body + b" " * self.random.choice([10, 1 << 20])
            case _:
                return body

    def wire(self, status, body):
        """Return an answer as it may come, and whether the connection stays open after it."""
        head, sized = b"HTTP/1.1 %d X\r\n" % status, b"content-length: %d\r\n\r\n"
        plain, stays = head + sized % len(body) + body, True
        match self.random.randrange(20):
            case 0:
                # the first one comes early, so that its room is among the memory that is compared with
                rare = self.random.random() < 0.01 or not self.has_bombed
                self.has_bombed = True
                packed = BOMB if rare else gzip.compress(body)[: self.random.choice([None, 15])]
                plain = head + b"content-encoding: gzip\r\n" + sized % len(packed) + packed
            case 1:
                flood = (b"x-%d: %s\r\n" % (n, b"y" * 90) for n in range(self.random.choice([20, 2000])))
                plain = head + b"".join(flood) + sized % len(body) + body
            case 2:
                pieces = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:]) if part)
                plain = head + b"transfer-encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"
            case 3:
                plain, stays = head + b"transfer-encoding: chunked\r\n\r\nzz\r\n" + body, False
            case 4:
                plain, stays = head + sized % (len(body) + 9) + body, False
            case 5:
                plain = head + b"content-encoding: br\r\n" + sized % len(body) + body
            case 6:
                plain, stays = self.random.choice([b"", b"\r\n", b"HTTP/1.1", b"SSH-2.0-x\r\n", CONTINUE]), False
            case 7:
                plain, stays = b"HTTP/1.1 103 Hints\r\n\r\n" + head + b"\r\n" + body, False
            case 8:
                delay = self.random.choice([b"1", b"-5", b"soon"])
                plain = head + b"retry-after: %s\r\n" % delay + sized % len(body) + body
        return plain, stays


class Stub:
    """A server that answers with what a fuzzer says."""

    def __init__(self, kind):
        self.fuzzer, self.kind, self.answered = Fuzzer(SEED), kind, 0

    async def serve(self, reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            stays = True
            while stays:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET"):
                    answer, stays = self.fuzzer.listing()
                else:
                    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                    answer, stays = self.fuzzer.answer(self.kind, json.loads(await reader.readexactly(length)))
                    self.answered += 1
                writer.write(answer)
                await writer.drain()
        writer.close()


def batch(random):
    key = BatchKey(
        backend="b",
        model=random.choice(["m", "n", "o"]),
        dimensions=random.choice([None, None, 4]),
        own_dimensions=random.choice([None, SIZE]),
        max_tokens=None,
        options=b"{}",
        matryoshka=random.random() < 0.5,
    )
    future = asyncio.get_running_loop().create_future()
    item = Item("k", "text", Lane.STANDARD, Deadline.after(60), future, since=0.0)
    return Batch(key=key, items=[item] * random.choice([1, 1, 2, 5]), truncate=random.random() < 0.1)


async def outcomes(kind, backend_class):
    """The outcome of every call, and the growth of the process."""
    stub, choices, found = Stub(kind), random.Random(SEED), set()
    server = await asyncio.start_server(stub.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    backend = backend_class(BackendSettings(kind=kind, urls=[url]))
    before = None
    while stub.answered < ANSWERS:
        if before is None and stub.answered > ANSWERS // 4:
            gc.collect()
            before = psutil.Process().memory_info().rss
        sent = batch(choices)
        if choices.random() < 0.1:
            with contextlib.suppress(CitadelError):
                await backend.models(url, timeout=20)
        try:
            results = await call_backend(backend, url, sent, Deadline.after(60), timeout=20)
        except CitadelError as error:
            found.add(error.code)
            continue
        assert len(results) == len(sent.items)
        for result in results:
            found.add("vector" if result.stored is not None else result.error.code)
            assert result.stored is None or result.stored.vector.ndim == 1
    gc.collect()
    await backend.aclose()
    server.close()
    return found, psutil.Process().memory_info().rss - before


@pytest.mark.parametrize(("kind", "backend_class"), [("openai", OpenAIBackend), ("ollama", OllamaBackend)])
def test_each_answer_ends_in_vectors_or_a_documented_error(kind, backend_class):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found, growth = runner.run(outcomes(kind, backend_class))
    assert found >= USUAL
    assert found - {"vector"} <= KINDS.keys() - {"internal", "backend_timed_out"}
    assert growth < MOST_GROWTH
