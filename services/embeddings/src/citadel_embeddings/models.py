"""Which models the backends have: asked for regularly, published for the API."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from citadel_common.deadline import Deadline
from citadel_common.embeddings import catalog
from citadel_common.errors import BackendRefused, BackendUnavailable, CitadelError, UnknownModel
from citadel_common.settings.embeddings import BackendSettings
from citadel_common.stores.redis import ERRORS
from citadel_contracts.api import ModelInfo
from citadel_embeddings.backends import Backend
from citadel_embeddings.backends.base import BackendModel
from citadel_embeddings.profiles import UNKNOWN, ModelProfile
from citadel_embeddings.settings import EmbeddingsFragment

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = structlog.get_logger(__name__)
LIST_TIMEOUT = 5.0
"""Seconds a server may take to list its models."""
RETRY_PAUSE = 0.25
"""Seconds between looks while a request waits for a backend to answer for the first time."""


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model and what a call to it needs."""

    info: ModelInfo
    profile: ModelProfile
    pinned_options: dict[str, Any]


@dataclass
class _Source:
    """One backend and what it last said; `listed` is None until it has answered once."""

    name: str
    settings: BackendSettings
    backend: Backend
    listed: list[BackendModel] | None = None
    is_open: bool = False
    error: CitadelError | None = None


@dataclass
class ModelRegistry:
    """The models of all backends; belongs to one event loop."""

    fragment: EmbeddingsFragment
    backends: dict[str, Backend]
    store: "Redis"
    _models: dict[str, ServedModel] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._sources = [
            _Source(name, self.fragment.backends[name], backend) for name, backend in self.backends.items()
        ]
        self._refreshing = asyncio.Lock()

    @property
    def known(self) -> list[ServedModel]:
        """The models that the backends have and that are embedding models for sure: they have a profile."""
        return [model for model in self._models.values() if model.profile is not UNKNOWN]

    async def resolve(self, name: str, deadline: Deadline) -> ServedModel:
        """The model of that name.

        Raises:
            UnknownModel: Every backend was asked, none has it.
            BackendUnavailable: A backend that may have it did not answer until the deadline.
            BackendRefused: Every backend that may have it refuses to say so.
        """
        while True:
            model = self._find(name)
            if model is not None:
                return model
            await self.refresh()
            if self._find(name) is None:
                self._raise_unless_worth_waiting(name, deadline)
                await asyncio.sleep(RETRY_PAUSE)

    def _raise_unless_worth_waiting(self, name: str, deadline: Deadline) -> None:
        silent = [source for source in self._sources if source.listed is None]
        if not silent:
            available = ", ".join(sorted(self._models)) or "none"
            raise UnknownModel.at("model", f"no backend has {name!r}; available: {available}")
        if all(isinstance(source.error, BackendRefused) for source in silent):
            raise BackendRefused(f"no backend lists its models: {silent[0].error}")
        if deadline.remaining <= RETRY_PAUSE:
            raise BackendUnavailable(f"no backend answers for {name!r}: {silent[0].error}")

    def _find(self, name: str) -> ServedModel | None:
        found = next((self._models[spelling] for spelling in catalog.spellings(name) if spelling in self._models), None)
        if found is not None:
            return found
        source = next((source for source in self._sources if source.is_open), None)
        return None if source is None else self._served(source, BackendModel(name=name))

    async def refresh(self) -> None:
        """Asks every backend once and publishes the answer; concurrent callers share one round."""
        if self._refreshing.locked():
            async with self._refreshing:
                return
        async with self._refreshing:
            await asyncio.gather(*(self._ask(source) for source in self._sources))
            found: dict[str, ServedModel] = {}
            for source in self._sources:
                for model in source.listed or []:
                    found.setdefault(model.name, self._served(source, model))
            self._models = found
            await self._publish()

    async def keep_fresh(self) -> None:
        """Refreshes for ever."""
        while True:
            await asyncio.sleep(self.fragment.refresh)
            await self.refresh()

    async def _ask(self, source: _Source) -> None:
        if source.settings.models:
            source.listed = [BackendModel(name=name) for name in source.settings.models]
            return
        urls = source.settings.urls or [""]
        answers = await asyncio.gather(*(self._list(source, url) for url in urls))
        lists = [answer for answer in answers if answer is not None]
        if lists:
            source.listed = _merged(lists)

    async def _list(self, source: _Source, url: str) -> Sequence[BackendModel] | None:
        try:
            models = await source.backend.models(url, timeout=LIST_TIMEOUT)
        except CitadelError as error:
            source.error = error
            return None
        except Exception as error:  # noqa: BLE001  (one backend's defect must not hide the others' models)
            source.error = BackendUnavailable(f"{type(error).__name__}: {error}")
            log.warning("backend_not_listed", backend=source.name, error=type(error).__name__)
            return None
        source.is_open = models is None
        return models or []

    def _served(self, source: _Source, model: BackendModel) -> ServedModel:
        profile = self.fragment.profile(model.name) or UNKNOWN
        info = ModelInfo(
            name=model.name,
            identity=re.sub(r"[^\w.@/-]", "_", f"{model.name}@{model.version or source.settings.kind}"),
            backend=source.name,
            dimensions=model.dimensions or profile.dimensions,
            max_tokens=model.max_tokens or profile.max_tokens,
            matryoshka=profile.matryoshka,
            accepts_empty=source.backend.accepts_empty,
            query_prefix=profile.query_prefix,
            document_prefix=profile.document_prefix,
        )
        pinned = profile.options if source.settings.kind == "ollama" else {}
        return ServedModel(info=info, profile=profile, pinned_options=pinned)

    async def _publish(self) -> None:
        """Only once some backend has answered: an empty catalogue would refuse every model."""
        if all(source.listed is None for source in self._sources):
            return
        is_open = any(source.is_open or source.listed is None for source in self._sources)
        try:
            await catalog.publish(self.store, (model.info for model in self._models.values()), is_open=is_open)
        except ERRORS as error:
            log.warning("catalog_not_published", error=type(error).__name__)


def _merged(lists: list[Sequence[BackendModel]]) -> list[BackendModel]:
    """The union; servers that hold different versions of a model are told apart in the log."""
    found: dict[str, BackendModel] = {}
    for model in (model for models in lists for model in models):
        first = found.setdefault(model.name, model)
        if first.version != model.version:
            log.warning("model_versions_differ", model=model.name, versions=[first.version, model.version])
    return list(found.values())
