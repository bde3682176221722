"""The embedding engine: texts in, vectors out; cached, batched, computed once.

Vector i belongs to text i: texts become distinct cache keys first, and every vector is found again by its key.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

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
from citadel_contracts.dialects import Truncate
from citadel_contracts.embeddings import BatchRequest, GenerateEmbedding, InputType, Texts
from citadel_contracts.workflows import EmbedPart
from citadel_embeddings.backends.base import ModelChanged, TextTooLong
from citadel_embeddings.items import BatchKey, Source, TextResult
from citadel_embeddings.models import ModelRegistry, ServedModel
from citadel_embeddings.single_flight import SingleFlight
from citadel_embeddings.tokens import ModelTokens

Results = Mapping[str, TextResult]
"""By cache key."""
MODEL_CHANGES = 2
"""Times that a request begins anew because its model has changed meanwhile."""
_CACHE = {spans.DB_SYSTEM: "redis", spans.DB_OPERATION: "MGET"}


@dataclass(frozen=True, kw_only=True)
class EmbedRequest:
    """Texts to embed; see the contract of `generate_embedding`."""

    text: Texts
    model: str
    options: Mapping[str, Any] | None = None
    cache_enabled: bool = True
    dimensions: int | None = None
    input_type: InputType | None = None
    truncate: Truncate | None = None
    truncate_prompt_tokens: int | None = None
    tokens: Sequence[Sequence[int]] | None = None

    @classmethod
    def of(
        cls, asked: GenerateEmbedding | BatchRequest | EmbedPart, text: Texts, *, default_model: str
    ) -> "EmbedRequest":
        """Return the request of a task, of one request of a batch, or of one part of a workflow step."""
        return cls(
            text=text,
            model=asked.model or default_model,
            options=asked.options,
            cache_enabled=asked.cache_enabled,
            dimensions=asked.dimensions,
            input_type=asked.input_type,
            truncate=asked.truncate,
            truncate_prompt_tokens=asked.truncate_prompt_tokens,
            tokens=None if isinstance(asked, EmbedPart) else asked.tokens,
        )

    @property
    def cuts(self) -> bool | None:
        """Whether texts that are too long are cut; None leaves it to the backend's protocol."""
        return self.truncate_prompt_tokens is not None or None if self.truncate is None else bool(self.truncate)


@dataclass(frozen=True, kw_only=True)
class EmbedResponse:
    """Results of a request.

    Attributes:
        model: Name of the model.
        results: results[i] belongs to text i.
        tokens: Tokens that backends counted for the distinct texts.
        cut: Indices of texts that were shortened before.
    """

    model: str
    results: Sequence[TextResult]
    tokens: int = 0
    cut: frozenset[int] = frozenset()

    @cached_property
    def vectors(self) -> list[Vector | None]:
        """The vector of each text; None where there is an error."""
        return [None if result.stored is None else result.stored.vector for result in self.results]

    @cached_property
    def errors(self) -> dict[int, CitadelError]:
        """Errors by the index of their text."""
        return {index: result.error for index, result in enumerate(self.results) if result.error is not None}

    @property
    def truncated(self) -> list[int]:
        """Indices of the texts that were cut."""
        return [
            index
            for index, result in enumerate(self.results)
            if index in self.cut or (result.stored and result.stored.truncated)
        ]

    @property
    def cache_hits(self) -> int:
        """Texts answered from the cache."""
        return sum(result.source == "cache" for result in self.results)

    @property
    def dimensions(self) -> int:
        """Length of the vectors; 0 if there is none."""
        return next((vector.size for vector in self.vectors if vector is not None), 0)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """A checked request: `keys[i]` and `prefixed[i]` belong to text i; `cut` are the indices of shortened texts."""

    model: str
    batch_key: BatchKey
    cached: bool
    keys: list[str]
    prefixed: list[str]
    cut: frozenset[int] = frozenset()

    @property
    def group(self) -> tuple[BatchKey, bool]:
        """What requests must share for their results to be the same."""
        return self.batch_key, self.cached

    @property
    def texts(self) -> dict[str, str]:
        """Each distinct text by its key."""
        return dict(zip(self.keys, self.prefixed, strict=True))


class EmbeddingEngine:
    """Answers requests from the cache and from backends; belongs to one event loop."""

    def __init__(
        self,
        *,
        registry: ModelRegistry,
        cache: EmbeddingCache,
        single_flight: SingleFlight,
        limits: LimitSettings,
        patience: float,
        metrics: Metrics,
    ) -> None:
        self.registry = registry
        self._cache = cache
        self._single_flight = single_flight
        self._limits = limits
        self._patience = patience
        self._metrics = metrics

    async def embed(self, request: EmbedRequest, deadline: Deadline, lane: Lane = Lane.STANDARD) -> EmbedResponse:
        """Return a vector or an error for each text; more urgent lanes go first.

        Raises:
            InvalidInput: The request as a whole is wrong.
            BackendUnavailable: No backend answered to say which models it has.
        """
        [response] = await self.embed_all([request], deadline, lane)
        if isinstance(response, CitadelError):
            raise response
        return response

    async def embed_all(
        self, embed_requests: Sequence[EmbedRequest], deadline: Deadline, lane: Lane = Lane.STANDARD
    ) -> list[EmbedResponse | CitadelError]:
        """Return the response to each request, or the error of a request that is wrong; all texts travel together."""
        patience = deadline.earliest(self._patience)
        plans = [await self._plan(request, patience) for request in embed_requests]
        found = await self._find_all(plans, lane, deadline)
        for _ in range(MODEL_CHANGES):
            changed = [index for index, plan in enumerate(plans) if _is_changed(plan, found)]
            if not changed:
                break
            await self.registry.refresh()
            for index in changed:
                plans[index] = await self._plan(embed_requests[index], patience)
            for group, results in (await self._find_all([plans[index] for index in changed], lane, deadline)).items():
                found[group] = {**found.get(group, {}), **results}
        self._count([(plan, found[plan.group]) for plan in plans if isinstance(plan, _Plan)])
        return [_response(plan, found[plan.group]) if isinstance(plan, _Plan) else plan for plan in plans]

    async def _find_all(
        self, plans: Sequence[_Plan | CitadelError], lane: Lane, deadline: Deadline
    ) -> dict[tuple[BatchKey, bool], Results]:
        """Return the results of all texts, which travel together."""
        wanted: dict[tuple[BatchKey, bool], dict[str, str]] = {}
        for plan in plans:
            if isinstance(plan, _Plan):
                wanted.setdefault(plan.group, {}).update(plan.texts)
        groups = await asyncio.gather(
            *(
                self._find(batch_key, texts, cached=cached, lane=lane, deadline=deadline)
                for (batch_key, cached), texts in wanted.items()
            )
        )
        return dict(zip(wanted, groups, strict=True))

    async def _plan(self, request: EmbedRequest, patience: Deadline) -> _Plan | CitadelError:
        try:
            requests.check_options(request.options)
            texts = requests.check_texts(request.text, self._limits)
            model = await self.registry.resolve(request.model, patience)
            prefix = requests.prefix_of(model.info, request.input_type)
            texts, cut = await self._readable(request, texts, model, prefix, patience)
            requests.check_not_empty(request.text, texts, model.info)
            dimensions = requests.check_dimensions(request.dimensions, model.info)
        except CitadelError as error:
            return error
        space = KeySpace(identity=model.info.identity, dimensions=dimensions, prefix=prefix, options=request.options)
        return _Plan(
            model=model.info.name,
            batch_key=_batch_key(model, dimensions, request),
            cached=request.cache_enabled,
            keys=space.keys(texts),
            prefixed=[prefix + text for text in texts] if prefix else texts,
            cut=cut,
        )

    async def _readable(
        self, request: EmbedRequest, texts: list[str], model: ServedModel, prefix: str, patience: Deadline
    ) -> tuple[list[str], frozenset[int]]:
        """Return the texts of token ids, and texts as short as the request wants them, with the indices of these."""
        tokens = ModelTokens(model=model.info.name, tokenizers=model.tokenizers, deadline=patience)
        if request.tokens is not None:
            texts = requests.check_texts(await tokens.texts_of(request.tokens, request.text), self._limits)
        truncate, limit = request.truncate, request.truncate_prompt_tokens
        most = requests.token_limit(texts, model.info, prefix, truncate=truncate, limit=limit)
        if most is None:
            return texts, frozenset()
        return await tokens.cut(texts, prefix, most, start=truncate == "start")

    async def _find(
        self, batch_key: BatchKey, texts: dict[str, str], *, cached: bool, lane: Lane, deadline: Deadline
    ) -> Results:
        """Look texts up in the cache, and have the missing ones computed."""
        results = await self._look_up(batch_key, list(texts)) if cached else {}
        missing = {key: text for key, text in texts.items() if key not in results}
        if missing:
            results |= await self._single_flight.fetch(batch_key, missing, cached=cached, lane=lane, deadline=deadline)
        return results

    async def _look_up(self, batch_key: BatchKey, keys: list[str]) -> dict[str, TextResult]:
        with tracing.span(spans.CACHE, "", _CACHE | {spans.TEXTS: len(keys)}) as span:
            hits = await self._cache.get_many(keys, size=batch_key.vector_size)
            span.set_attribute(spans.HITS, sum(hit is not None for hit in hits))
        return {key: TextResult(stored=hit, source="cache") for key, hit in zip(keys, hits, strict=True) if hit}

    def _count(self, answered: Sequence[tuple[_Plan, Results]]) -> None:
        computed: set[tuple[bool, str]] = set()
        sources = Counter(source for plan, results in answered for source in _sources(plan, results, computed))
        for source, texts in sources.items():
            self._metrics.count(names.TEXTS, texts, source=source)


def _is_changed(plan: _Plan | CitadelError, found: Mapping[tuple[BatchKey, bool], Results]) -> bool:
    """Return whether the model has got another version, and the texts other keys, since the request was planned."""
    return isinstance(plan, _Plan) and any(isinstance(found[plan.group][key].error, ModelChanged) for key in plan.keys)


def _response(plan: _Plan, results: Results) -> EmbedResponse:
    tokens = sum(results[key].tokens for key in set(plan.keys))
    found = [_uncut(plan, results[key]) for key in plan.keys]
    return EmbedResponse(model=plan.model, results=found, tokens=tokens, cut=plan.cut)


def _uncut(plan: _Plan, result: TextResult) -> TextResult:
    """Return the result; an error if its text was cut, perhaps for another caller, and this caller forbids that."""
    if plan.batch_key.cut or result.stored is None or not result.stored.truncated:
        return result
    return TextResult.failed(
        TextTooLong(f"the text is longer than the model's context length ({plan.model}); `truncate` cuts it")
    )


def _sources(plan: _Plan, results: Results, computed: set[tuple[bool, str]]) -> Iterator[Source]:
    """Yield the source of each text; the second text with a computed vector shares it with the first.

    Args:
        plan: The request.
        results: The results of its keys.
        computed: Keys that were counted already, here and for requests that travelled along.
    """
    for key in plan.keys:
        source, once = results[key].source, (plan.cached, key)
        yield "shared" if source == "backend" and once in computed else source
        computed.add(once)


def _batch_key(model: ServedModel, dimensions: int | None, request: EmbedRequest) -> BatchKey:
    merged = model.pinned_options | dict(request.options or {})
    return BatchKey(
        backend=model.info.backend,
        model=model.info.name,
        dimensions=dimensions,
        own_dimensions=model.info.dimensions,
        max_tokens=model.info.max_tokens,
        version=model.version,
        matryoshka=model.info.matryoshka,
        cut=model.cuts if request.cuts is None else request.cuts,
        options=orjson.dumps(merged, option=orjson.OPT_SORT_KEYS),
    )
