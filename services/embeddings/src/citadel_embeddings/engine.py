"""The embedding engine: texts in, vectors out; cached, coalesced, computed once.

Vector i belongs to text i: texts become distinct keys first, and every vector is found again by its key.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from citadel_common.deadline import Deadline
from citadel_common.embeddings import requests
from citadel_common.embeddings.cache import EmbeddingCache
from citadel_common.embeddings.keys import KeySpace
from citadel_common.embeddings.vectors import Vector
from citadel_common.errors import CitadelError
from citadel_common.settings.common import LimitSettings
from citadel_common.telemetry import Metrics, names, spans, tracing
from citadel_contracts import Lane
from citadel_contracts.embeddings import InputType, Texts
from citadel_embeddings.flights import Flights
from citadel_embeddings.models import ModelRegistry, ServedModel
from citadel_embeddings.work import CallKey, Computed


@dataclass(frozen=True, kw_only=True)
class EmbedRequest:
    """What to embed; see the contract of `generate_embedding`."""

    text: Texts
    model: str
    options: Mapping[str, Any] | None = None
    cache_enabled: bool = True
    dimensions: int | None = None
    input_type: InputType | None = None


@dataclass(kw_only=True)
class Outcome:
    """Vector or error of each text.

    Attributes:
        model: Name of the model.
        vectors: vectors[i] belongs to text i; None just where `errors` has i.
        errors: By index.
        truncated: Indices of texts that were cut.
        cache_hits: Texts answered from the cache.
        tokens: As the backends counted, for what they computed.
    """

    model: str
    vectors: list[Vector | None]
    errors: dict[int, CitadelError] = field(default_factory=dict)
    truncated: list[int] = field(default_factory=list)
    cache_hits: int = 0
    tokens: int = 0

    @property
    def dimensions(self) -> int:
        """Length of the vectors; 0 when there is none."""
        return next((vector.size for vector in self.vectors if vector is not None), 0)


Source = Literal["cache", "shared", "backend", "error"]
"""Where the answer to a text came from; see `citadel_texts_total`."""
_CACHE = {spans.DB_SYSTEM: "redis", spans.DB_OPERATION: "MGET"}


class EmbeddingEngine:
    """Joins the model registry, the cache and the flights; belongs to one event loop."""

    def __init__(
        self,
        *,
        registry: ModelRegistry,
        cache: EmbeddingCache,
        flights: Flights,
        limits: LimitSettings,
        patience: float,
        metrics: Metrics,
    ) -> None:
        self._registry = registry
        self._cache = cache
        self._flights = flights
        self._limits = limits
        self._patience = patience
        self._metrics = metrics

    @property
    def registry(self) -> ModelRegistry:
        """The models."""
        return self._registry

    async def embed(self, request: EmbedRequest, deadline: Deadline, lane: Lane = Lane.STANDARD) -> Outcome:
        """Embeds each text or says why not; more urgent lanes go first.

        Raises:
            InvalidInput: The request as a whole is wrong.
            BackendUnavailable: No backend answered to say which models it has.
        """
        [outcome] = await self.embed_all([request], deadline, lane)
        if isinstance(outcome, CitadelError):
            raise outcome
        return outcome

    async def embed_all(
        self, embed_requests: Sequence[EmbedRequest], deadline: Deadline, lane: Lane = Lane.STANDARD
    ) -> list[Outcome | CitadelError]:
        """The outcome of each request, or why it is wrong; all their texts travel together."""
        patience = deadline.earliest(self._patience)
        plans = [await self._plan(request, patience) for request in embed_requests]
        wanted: dict[tuple[CallKey, bool], dict[str, str]] = {}
        for plan in plans:
            if isinstance(plan, Plan):
                wanted.setdefault((plan.call, plan.cached), {}).update(plan.texts)
        groups = await asyncio.gather(
            *(
                self._find(call, texts, cached=cached, lane=lane, deadline=deadline)
                for (call, cached), texts in wanted.items()
            )
        )
        found = dict(zip(wanted, groups, strict=True))
        self._count([plan for plan in plans if isinstance(plan, Plan)], found)
        return [_outcome(plan, found[plan.call, plan.cached]) if isinstance(plan, Plan) else plan for plan in plans]

    async def _plan(self, request: EmbedRequest, patience: Deadline) -> "Plan | CitadelError":
        try:
            texts = requests.check_texts(request.text, self._limits)
            requests.check_options(request.options)
            model = await self._registry.resolve(request.model, patience)
            requests.check_not_empty(request.text, texts, model.info)
            dimensions = requests.check_dimensions(request.dimensions, model.info)
        except CitadelError as error:
            return error
        prefix = requests.prefix_of(model.info, request.input_type)
        space = KeySpace(identity=model.info.identity, dimensions=dimensions, prefix=prefix, options=request.options)
        return Plan(
            model=model.info.name,
            call=_call_key(model, dimensions, request.options),
            cached=request.cache_enabled,
            keys=space.keys(texts),
            prefixed=[prefix + text for text in texts] if prefix else texts,
        )

    async def _find(
        self, call: CallKey, wanted: dict[str, str], *, cached: bool, lane: Lane, deadline: Deadline
    ) -> "dict[str, Found]":
        found: dict[str, Found] = {}
        if cached:
            keys = list(wanted)
            with tracing.span(spans.CACHE, "", _CACHE | {spans.TEXTS: len(keys)}) as span:
                stored = await self._cache.get_many(keys, size=call.expected)
                span.set_attribute(spans.HITS, sum(hit is not None for hit in stored))
            found = {key: Found(Computed(hit, 0), hit=True) for key, hit in zip(keys, stored, strict=True) if hit}
        missing = {key: text for key, text in wanted.items() if key not in found}
        if missing:
            computed = await self._flights.fetch(call, missing, cached=cached, lane=lane, deadline=deadline)
            found.update((key, Found(result)) for key, result in computed.items())
        return found

    def _count(self, plans: "Sequence[Plan]", found: "Mapping[tuple[CallKey, bool], Mapping[str, Found]]") -> None:
        computed: set[tuple[bool, str]] = set()
        sources = Counter(
            source for plan in plans for source in _sources(plan, found[plan.call, plan.cached], computed)
        )
        for source, texts in sources.items():
            self._metrics.count(names.TEXTS, texts, source=source)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A checked request: `keys[i]` and `prefixed[i]` belong to text i."""

    model: str
    call: CallKey
    cached: bool
    keys: list[str]
    prefixed: list[str]

    @property
    def texts(self) -> dict[str, str]:
        """Each distinct text by its key."""
        return dict(zip(self.keys, self.prefixed, strict=True))


@dataclass(frozen=True, slots=True)
class Found:
    """What came of one key, and whether it came from the cache."""

    result: Computed | CitadelError
    hit: bool = False

    @property
    def source(self) -> Source:
        """Where it came from."""
        if isinstance(self.result, CitadelError):
            return "error"
        if self.hit:
            return "cache"
        return "shared" if self.result.shared else "backend"


def _outcome(plan: Plan, found: Mapping[str, Found]) -> Outcome:
    outcome = Outcome(model=plan.model, vectors=[])
    for index, key in enumerate(plan.keys):
        entry = found[key]
        if isinstance(entry.result, CitadelError):
            outcome.errors[index] = entry.result
            outcome.vectors.append(None)
            continue
        outcome.vectors.append(entry.result.stored.vector)
        outcome.cache_hits += entry.hit
        if entry.result.stored.truncated:
            outcome.truncated.append(index)
    results = (found[key].result for key in set(plan.keys))
    outcome.tokens = sum(result.tokens for result in results if isinstance(result, Computed))
    return outcome


def _sources(plan: Plan, found: Mapping[str, Found], computed: set[tuple[bool, str]]) -> Iterator[Source]:
    """The source of each text; of what a backend computed, the first one only has it from there.

    Args:
        plan: The request.
        found: What came of its keys.
        computed: What has been counted for a backend already, here and for requests that travelled along.
    """
    for key in plan.keys:
        source, once = found[key].source, (plan.cached, key)
        yield "shared" if source == "backend" and once in computed else source
        computed.add(once)


def _call_key(model: ServedModel, dimensions: int | None, options: Mapping[str, Any] | None) -> CallKey:
    merged = model.pinned_options | dict(options or {})
    return CallKey(
        backend=model.info.backend,
        model=model.info.name,
        dimensions=dimensions,
        own_dimensions=model.info.dimensions,
        max_tokens=model.info.max_tokens,
        options=orjson.dumps(merged, option=orjson.OPT_SORT_KEYS),
    )
