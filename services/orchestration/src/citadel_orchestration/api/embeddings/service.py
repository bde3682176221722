"""Embeddings for a request that waits: from the caches where they can be, the rest computed by one task."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from citadel_common.embeddings.cache import EmbeddingCache
from citadel_common.embeddings.catalog import Catalog
from citadel_common.embeddings.keys import KeySpace
from citadel_common.embeddings.requests import (
    check_dimensions,
    check_not_empty,
    check_options,
    check_texts,
    find_model,
    index_in,
    no_tokenizer,
    prefix_of,
    token_limit,
)
from citadel_common.errors import CitadelError, from_data
from citadel_common.published import PublishedReader
from citadel_common.settings.common import LimitSettings
from citadel_contracts import GENERATE_EMBEDDING, Lane
from citadel_contracts.api import EmbeddingsRequest, ModelInfo
from citadel_contracts.embeddings import GenerateEmbeddingResult, ItemError
from citadel_contracts.errors import ErrorData
from citadel_orchestration.api.embeddings.responses import (
    EncodedVector,
    MemoryCache,
    encode,
    encode_base64,
    openai_body,
)
from citadel_orchestration.api.embeddings.token_input import Tokens
from citadel_orchestration.api.tasks.calls import TaskCaller


@dataclass(frozen=True, kw_only=True)
class ValidRequest:
    """A request that has passed all checks.

    Attributes:
        body: The request.
        texts: Its texts, in order.
        model: Name of the model.
        keys: Cache keys of the texts; None if the cache is not to be used, or the model is not in the catalogue.
        tokens: Token ids in place of the texts.
    """

    body: EmbeddingsRequest
    texts: list[str]
    model: str
    keys: list[str] | None
    tokens: Tokens | None = None

    @property
    def refuses_cut(self) -> bool:
        """Whether the vector of a text that was cut is not wanted; the worker answers with the error."""
        return self.body.truncate is False

    @property
    def memory_keys(self) -> list[str]:
        """Keys in the memory cache, which holds vectors in the encoding in which they are sent."""
        return [key + self.body.encoding_format[0] for key in self.keys or ()]


@dataclass(frozen=True)
class MissingTexts:
    """Texts that no cache has; `positions[i]` are the positions of text i in the request."""

    texts: list[str]
    positions: list[list[int]]

    @classmethod
    def of(cls, texts: Sequence[str], missing: Sequence[int], *, distinct: bool) -> "MissingTexts":
        """Return the texts at the positions `missing`; with `distinct` equal texts are computed once."""
        groups: dict[str | int, list[int]] = {}
        for position in missing:
            groups.setdefault(texts[position] if distinct else position, []).append(position)
        return cls([texts[positions[0]] for positions in groups.values()], list(groups.values()))


class EmbeddingsService:
    """Answers requests of OpenAI's embeddings route.

    Args:
        cache: Vectors in Redis.
        memory: Vectors in this process, asked first.
        models: The models that workers have.
        tasks: Calls the embeddings workers.
        limits: Limits of texts.
        default_model: Name of the model for requests that name none.
    """

    def __init__(
        self,
        cache: EmbeddingCache,
        memory: MemoryCache,
        models: PublishedReader[Catalog],
        tasks: TaskCaller,
        *,
        limits: LimitSettings,
        default_model: str,
    ) -> None:
        self._cache = cache
        self._memory = memory
        self._models = models
        self._tasks = tasks
        self._limits = limits
        self._default_model = default_model

    async def respond(self, body: EmbeddingsRequest, token_ids: Tokens | None = None) -> bytes:
        """Return the body of the response.

        Args:
            body: The request.
            token_ids: Those of its texts, which are empty then.

        Raises:
            CitadelError: The request is not valid, or cannot be served now.
        """
        request = self._validate(body, token_ids)
        vectors = await self._cached(request)
        missing = [position for position, vector in enumerate(vectors) if vector is None]
        hits, tokens = len(vectors) - len(missing), 0
        if missing:
            texts = MissingTexts.of(request.texts, missing, distinct=request.keys is not None)
            result = await self._compute(request, texts)
            computed = _vectors_of(result, request, texts)
            for position, vector in computed.items():
                vectors[position] = vector
            self._keep(request, computed)
            hits, tokens = hits + result["cache_hits"], result["total_tokens"]
        complete = cast("list[EncodedVector]", vectors)
        return openai_body(complete, model=request.model, tokens=tokens, cache_hits=hits)

    def _validate(self, body: EmbeddingsRequest, tokens: Tokens | None) -> ValidRequest:
        texts = check_texts(body.input, self._limits, field="input")
        if body.options:
            check_options(body.options)
        name = body.model or self._default_model
        model = find_model(name, self._models.latest)
        if model is None:
            return ValidRequest(body=body, texts=texts, model=name, keys=None, tokens=tokens)
        dimensions = check_dimensions(body.dimensions, model)
        if tokens is not None:
            if not model.tokenizes:
                raise no_tokenizer(model.name, field="input")
            return ValidRequest(body=body, texts=texts, model=model.name, keys=None, tokens=tokens)
        check_not_empty(body.input, texts, model, field="input")
        keys = _keys(body, texts, model, dimensions) if body.cache_enabled and not _is_cut(body, texts, model) else None
        return ValidRequest(body=body, texts=texts, model=model.name, keys=keys)

    async def _cached(self, request: ValidRequest) -> list[EncodedVector | None]:
        """Return the vectors that the caches have, in the order of the texts."""
        if request.keys is None:
            return [None] * len(request.texts)
        names = request.memory_keys
        vectors = [self._from_memory(name, request) for name in names]
        unknown = [position for position, vector in enumerate(vectors) if vector is None]
        self._cache.count_hits(len(vectors) - len(unknown))
        if unknown:
            found = await self._cache.get_many([request.keys[position] for position in unknown])
            for position, stored in zip(unknown, found, strict=True):
                if stored is not None and not (stored.truncated and request.refuses_cut):
                    vector = EncodedVector(encode(stored.vector, request.body.encoding_format), stored.truncated)
                    vectors[position] = vector
                    self._memory.put(names[position], vector)
        return vectors

    def _from_memory(self, name: str, request: ValidRequest) -> EncodedVector | None:
        vector = self._memory.get(name)
        return None if vector is not None and vector.truncated and request.refuses_cut else vector

    async def _compute(self, request: ValidRequest, texts: MissingTexts) -> GenerateEmbeddingResult:
        body = request.body
        arguments: dict[str, Any] = {
            "text": texts.texts,
            "model": request.model,
            "options": body.options,
            "cache_enabled": body.cache_enabled,
            "dimensions": body.dimensions,
            "input_type": body.input_type,
            "encoding_format": "base64",
        }
        # A worker of an older version refuses the message of a task with fields that it does not know.
        arguments |= body.model_dump(include={"truncate", "truncate_prompt_tokens"}, exclude_none=True)
        if request.tokens is not None:
            arguments["tokens"] = request.tokens
        try:
            result: GenerateEmbeddingResult = await self._tasks.call(
                GENERATE_EMBEDDING, arguments, lane=Lane.INTERACTIVE
            )
        except CitadelError as error:
            raise _in_terms_of_request(error, texts, body) from None
        return result

    def _keep(self, request: ValidRequest, vectors: Mapping[int, EncodedVector]) -> None:
        if request.keys is None:
            return
        names = request.memory_keys
        for position, vector in vectors.items():
            self._memory.put(names[position], vector)


def _is_cut(body: EmbeddingsRequest, texts: Sequence[str], model: ModelInfo) -> bool:
    """Return whether the worker may have to cut a text first, so that its key is not known here."""
    if body.truncate_prompt_tokens is None and body.truncate != "start":
        return False
    prefix = prefix_of(model, body.input_type)
    limit = token_limit(texts, model, prefix, truncate=body.truncate, limit=body.truncate_prompt_tokens)
    return limit is not None


def _keys(body: EmbeddingsRequest, texts: Sequence[str], model: ModelInfo, dimensions: int | None) -> list[str]:
    prefix = prefix_of(model, body.input_type)
    if not body.options:
        return _plain_keys(model.identity, dimensions, prefix).keys(texts)
    space = KeySpace(identity=model.identity, dimensions=dimensions, prefix=prefix, options=body.options)
    return space.keys(texts)


@functools.lru_cache(maxsize=256)
def _plain_keys(identity: str, dimensions: int | None, prefix: str) -> KeySpace:
    """Return the key space of requests without options, which are most: they share a few spaces."""
    return KeySpace(identity=identity, dimensions=dimensions, prefix=prefix, options=None)


def _vectors_of(
    result: GenerateEmbeddingResult, request: ValidRequest, texts: MissingTexts
) -> dict[int, EncodedVector]:
    """Return the vectors of a task's result by position in the request.

    Raises:
        CitadelError: Some text has no vector.
    """
    if result["errors"]:
        raise _item_error(result["errors"], texts, request.body)
    if len(result["embeddings"]) != len(texts.positions):
        raise CitadelError("the worker answered with a different number of vectors than it was sent texts")
    vectors: dict[int, EncodedVector] = {}
    truncated = set(result["truncated"])
    for index, (vector, positions) in enumerate(zip(result["embeddings"], texts.positions, strict=True)):
        if not isinstance(vector, str):
            raise CitadelError("the worker answered with a vector that is not in base64")
        encoded = EncodedVector(encode_base64(vector, request.body.encoding_format), index in truncated)
        vectors.update(dict.fromkeys(positions, encoded))
    return vectors


def _in_terms_of_request(error: CitadelError, texts: MissingTexts, body: EmbeddingsRequest) -> CitadelError:
    """Return the error about `input[j]`, as the client sent it, for the worker's about its own argument `text[i]`."""
    if error.field != "text":
        return error
    return error.about("input", _input_index(texts, body, error.index))


def _input_index(texts: MissingTexts, body: EmbeddingsRequest, index: int | None) -> int | None:
    return index_in(body.input, texts.positions[index or 0][0])


def _item_error(errors: Sequence[ItemError], texts: MissingTexts, body: EmbeddingsRequest) -> CitadelError:
    """Return the error of the first bad text; a client can do nothing with vectors that have holes."""
    found = [ErrorData.model_validate(item) for item in errors]
    first, *others = sorted(found, key=lambda item: texts.positions[item.index or 0][0])
    more = f" (and {len(others)} more)" if others else ""
    error = from_data(first.model_copy(update={"message": first.message + more}))
    return error.about("input", _input_index(texts, body, first.index))
