"""Answers embedding requests: from the cache where it can, by one task with the texts that are missing else."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from citadel_common.embeddings.cache import EmbeddingCache
from citadel_common.embeddings.keys import KeySpace
from citadel_common.embeddings.requests import (
    check_dimensions,
    check_not_empty,
    check_options,
    check_texts,
    find_model,
    prefix_of,
)
from citadel_common.settings.common import LimitSettings
from citadel_contracts.api import EmbeddingsRequest, ModelInfo
from citadel_orchestration.api.embeddings.compute import Computation, Work
from citadel_orchestration.api.embeddings.known_models import KnownModels
from citadel_orchestration.api.embeddings.memory_cache import HotCache
from citadel_orchestration.api.embeddings.responses import Piece, fragment_of, openai_answer


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A request that passed all checks.

    Attributes:
        texts: The texts, in order.
        model: The model's name.
        keys: The texts' cache keys; None where the cache is not to be used, or the model is not known here.
    """

    texts: list[str]
    model: str
    keys: list[str] | None


class Embedder:
    """The synchronous route's work."""

    def __init__(
        self,
        cache: EmbeddingCache,
        hot: HotCache,
        models: KnownModels,
        computation: Computation,
        *,
        limits: LimitSettings,
        default_model: str,
    ) -> None:
        self._cache = cache
        self._hot = hot
        self._models = models
        self._computation = computation
        self._limits = limits
        self._default_model = default_model

    async def answer(self, request: EmbeddingsRequest) -> bytes:
        """The response's body.

        Raises:
            CitadelError: The request is bad, or cannot be served now.
        """
        checked = self._check(request)
        pieces = await self._cached(request, checked)
        missing = [index for index, piece in enumerate(pieces) if piece is None]
        hits = len(pieces) - len(missing)
        tokens = 0
        if missing:
            work = Work.of(checked.texts, missing, distinct=checked.keys is not None)
            computed = await self._computation.run(work, request, model=checked.model)
            for index, piece in computed.pieces.items():
                pieces[index] = piece
            self._keep(request, checked, computed.pieces)
            hits, tokens = hits + computed.cache_hits, computed.tokens
        complete = cast("list[Piece]", pieces)
        return openai_answer(complete, model=checked.model, tokens=tokens, cache_hits=hits)

    def _check(self, request: EmbeddingsRequest) -> Checked:
        texts = check_texts(request.input, self._limits, field="input")
        if request.options:
            check_options(request.options)
        name = request.model or self._default_model
        model = find_model(name, self._models.catalog)
        if model is None:
            return Checked(texts=texts, model=name, keys=None)
        dimensions = check_dimensions(request.dimensions, model)
        check_not_empty(request.input, texts, model, field="input")
        keys = _keys(request, texts, model, dimensions) if request.cache_enabled else None
        return Checked(texts=texts, model=model.name, keys=keys)

    async def _cached(self, request: EmbeddingsRequest, checked: Checked) -> list[Piece | None]:
        """What the cache has, in order."""
        if checked.keys is None:
            return [None] * len(checked.texts)
        names = _hot_names(checked.keys, request)
        pieces = [self._hot.get(name) for name in names]
        unknown = [index for index, piece in enumerate(pieces) if piece is None]
        self._cache.count_hits(len(pieces) - len(unknown))
        if unknown:
            found = await self._cache.get_many([checked.keys[index] for index in unknown])
            for index, stored in zip(unknown, found, strict=True):
                if stored is not None:
                    piece = Piece(fragment_of(stored.vector, request.encoding_format), stored.truncated)
                    pieces[index] = piece
                    self._hot.put(names[index], piece)
        return pieces

    def _keep(self, request: EmbeddingsRequest, checked: Checked, pieces: Mapping[int, Piece]) -> None:
        if checked.keys is None:
            return
        names = _hot_names(checked.keys, request)
        for index, piece in pieces.items():
            self._hot.put(names[index], piece)


def _keys(request: EmbeddingsRequest, texts: Sequence[str], model: ModelInfo, dimensions: int | None) -> list[str]:
    prefix = prefix_of(model, request.input_type)
    if not request.options:
        return _plain_keys(model.identity, dimensions, prefix).keys(texts)
    space = KeySpace(identity=model.identity, dimensions=dimensions, prefix=prefix, options=request.options)
    return space.keys(texts)


@functools.lru_cache(maxsize=256)
def _plain_keys(identity: str, dimensions: int | None, prefix: str) -> KeySpace:
    """Most requests have no options, and few key spaces serve them all."""
    return KeySpace(identity=identity, dimensions=dimensions, prefix=prefix, options=None)


def _hot_names(keys: Sequence[str], request: EmbeddingsRequest) -> list[str]:
    """Names in the hot cache, which holds a vector in the form in which it is sent."""
    return [key + request.encoding_format[0] for key in keys]
