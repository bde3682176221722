"""The embedding engine on a backend and a cache that are only in memory.

A text's first word says what the backend makes of it:

    good            its vector
    rejected        the request is refused
    nan, infinite, zero, short      that flaw in its vector
    missing         one vector fewer than there are texts
    lost N          the first N requests with it find nobody listening
    failing N       the first N requests with it fail in the server
    busy N          the server says to the first N requests with it that it is busy
    crash S         the server ends, and returns after S seconds
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from citadel_common.embeddings.vectors import Stored, Vector
from citadel_common.errors import BackendUnavailable, TextRejected
from citadel_common.settings.common import LimitSettings
from citadel_common.settings.embeddings import BackendSettings
from citadel_common.telemetry import NULL_METRICS, Metrics
from citadel_embeddings.backends.base import BackendModel, EmbedCall, EmbedReply, ServerFailed
from citadel_embeddings.batch_calls import BatchCaller
from citadel_embeddings.batching import Batcher, Budget
from citadel_embeddings.endpoints.pool import EndpointPool
from citadel_embeddings.engine import EmbeddingEngine
from citadel_embeddings.models import ModelRegistry
from citadel_embeddings.settings import EmbeddingsFragment
from citadel_embeddings.single_flight import SingleFlight
from tests.support.virtual_time import CLOCK

MODEL = "tiny"
DIMENSIONS = 8
SECONDS = 0.05
"""Seconds that a call takes."""
FLAWS = ("nan", "infinite", "zero", "short", "missing")
PREFIXES = {None: "", "query": "good q: ", "document": "good d: "}


def vector_of(text: str, dimensions: int | None = None) -> Vector:
    """Return what the backend answers for a good text."""
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    full = np.random.default_rng(seed).standard_normal(DIMENSIONS).astype("<f4")
    return full[: dimensions or DIMENSIONS]


class FakeBackend:
    """Computes vectors as the texts say, and counts."""

    kind = "fake"
    accepts_empty = False
    cuts = False

    def __init__(self) -> None:
        self.computed: Counter[tuple[str, int | None]] = Counter()
        self.calls: list[list[str]] = []
        self.failing = False
        self.down_until: dict[str, float] = {}
        self.crashes: list[str] = []
        self._seen: Counter[str] = Counter()

    async def embed(self, url: str, call: EmbedCall, *, timeout: float) -> EmbedReply:
        """Embed, with the flaws that the texts ask for."""
        del timeout
        self.calls.append(list(call.texts))
        self._raise_if_down(url)
        await asyncio.sleep(SECONDS)
        self._raise_if_down(url, ServerFailed)
        kinds = [text.split()[0] for text in call.texts]
        for text, kind in zip(call.texts, kinds, strict=True):
            self._fail(url, text, kind)
        self.computed.update((text, call.dimensions) for text in call.texts)
        rows = [_row(text, kind, call.dimensions) for text, kind in zip(call.texts, kinds, strict=True)]
        return EmbedReply(rows=rows[:-1] if "missing" in kinds else rows, tokens=len(rows))

    def _raise_if_down(self, url: str, error: type[BackendUnavailable] = BackendUnavailable) -> None:
        if self.failing:
            raise ServerFailed
        if CLOCK.monotonic() < self.down_until.get(url, 0.0):
            raise error

    def _fail(self, url: str, text: str, kind: str) -> None:
        if kind == "rejected":
            raise TextRejected
        if kind == "crash":
            self.crashes.append(url)
            self.down_until[url] = CLOCK.monotonic() + float(text.split()[1])
            raise ServerFailed("hung up")
        if kind in {"lost", "failing", "busy"}:
            self._seen[text] += 1
            if self._seen[text] <= int(text.split()[1]):
                raise {"lost": BackendUnavailable(), "failing": ServerFailed(), "busy": ServerFailed.busy("busy")}[kind]

    def tokenizer(self, url: str, model: str) -> None:
        """Have none."""

    async def models(self, url: str, *, timeout: float) -> Sequence[BackendModel]:
        """List the one model."""
        del url, timeout
        return [BackendModel(name=MODEL, version="1")]

    async def aclose(self) -> None:
        """Do nothing."""


def _row(text: str, kind: str, dimensions: int | None) -> object:
    row = vector_of(text, dimensions).copy()
    if kind == "nan":
        row[0] = np.nan
    if kind == "infinite":
        row[-1] = np.inf
    if kind == "zero":
        row[:] = 0
    return row[:-1].tolist() if kind == "short" else row.tolist()


class FakeCache:
    """The cache's interface, in memory; claims never lapse."""

    def __init__(self) -> None:
        self.stored: dict[str, Stored] = {}
        self.claims: set[str] = set()

    async def get_many(self, keys: Sequence[str], *, size: int | None = None) -> list[Stored | None]:
        """Return the stored vectors."""
        del size
        return [self.stored.get(key) for key in keys]

    peek_many = get_many

    async def claim_many(self, keys: Sequence[str]) -> list[bool]:
        """Grant what is free."""
        granted = [key not in self.claims and key not in self.stored for key in keys]
        self.claims |= set(keys)
        return granted

    async def put_many(self, vectors: Mapping[str, Stored]) -> None:
        """Store and release."""
        self.stored |= vectors
        await self.release_many(list(vectors))

    async def release_many(self, keys: Sequence[str]) -> None:
        """Release."""
        self.claims -= set(keys)


class _NoStore:
    async def set(self, *_: Any, **__: Any) -> None:
        """Take the catalogue."""


class World:
    """One engine, its backend and its cache, which other worlds may share as other processes do."""

    def __init__(
        self,
        *,
        urls: int = 1,
        concurrency: int = 2,
        batch: int = 8,
        patience: float = 60.0,
        cache: FakeCache | None = None,
        metrics: Metrics = NULL_METRICS,
    ) -> None:
        self.patience = patience
        self.backend = FakeBackend()
        self.cache = cache or FakeCache()
        settings = BackendSettings(
            kind="openai",
            urls=[f"http://server{n}" for n in range(urls)],
            concurrency=concurrency,
            max_concurrency=4,
        )
        profile = {"dimensions": DIMENSIONS, "matryoshka": True}
        prefixes = {"query_prefix": PREFIXES["query"], "document_prefix": PREFIXES["document"]}
        fragment = EmbeddingsFragment.model_validate(
            {"backends": {"fake": settings}, "profiles": {MODEL: profile | prefixes}, "patience": patience}
        )
        cache: Any = self.cache
        store: Any = _NoStore()
        self.pool = pool = EndpointPool(
            "fake", self.backend, settings, patience=patience, metrics=metrics, clock=CLOCK.monotonic
        )
        caller = BatchCaller(pool, cache, clock=CLOCK.monotonic)
        self._batcher = Batcher(caller, pool, Budget(texts=batch, tokens=16384, linger=0.004))
        self.single_flight = SingleFlight(cache, {"fake": self._batcher}, clock=CLOCK.monotonic)
        self.engine = EmbeddingEngine(
            registry=ModelRegistry(fragment=fragment, backends={"fake": self.backend}, store=store),
            cache=cache,
            single_flight=self.single_flight,
            limits=LimitSettings(),
            patience=patience,
            metrics=metrics,
        )

    async def aclose(self) -> None:
        """Close the parts in the order of the service."""
        await self._batcher.aclose()
        await self.single_flight.aclose()
