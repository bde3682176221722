"""Registry of the models that the backends have; it asks them regularly, and publishes the answer for the API."""

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from citadel_common.deadline import Deadline
from citadel_common.embeddings import catalog
from citadel_common.errors import BackendRefused, BackendUnavailable, CitadelError, UnknownModel
from citadel_common.settings.embeddings import BackendSettings
from citadel_common.stores.redis import ERRORS
from citadel_contracts.api import ModelInfo
from citadel_embeddings.backends.base import Backend, BackendModel, Tokenizer
from citadel_embeddings.backends.versions import LIST_TIMEOUT, ModelVersions
from citadel_embeddings.profiles import UNKNOWN, ModelProfile
from citadel_embeddings.settings import EmbeddingsFragment

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = structlog.get_logger(__name__)
RETRY_PAUSE = 0.25
"""Seconds between questions while a request waits for the first answer of a backend."""


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model that a backend has.

    Attributes:
        info: What the catalogue says of it.
        profile: Its profile.
        pinned_options: Options that every call to it carries.
        cuts: Whether its backend cuts texts that are too long.
        version: Its version; None if its servers name none.
        tokenizers: One per server that may tokenize.
    """

    info: ModelInfo
    profile: ModelProfile
    pinned_options: dict[str, Any]
    cuts: bool
    version: str | None
    tokenizers: tuple[Tokenizer, ...] = ()


@dataclass
class _BackendState:
    """One backend and its last answer.

    Attributes:
        name: Its name in the settings.
        settings: Its settings.
        backend: The protocol.
        listed: Its models; None until it has answered once.
        is_open: Whether it cannot list its models, so that any name may be one.
        error: Why the last question failed.
    """

    name: str
    settings: BackendSettings
    backend: Backend
    listed: list[BackendModel] | None = None
    is_open: bool = False
    error: CitadelError | None = None


class ModelRegistry:
    """Models of all backends; belongs to one event loop.

    Args:
        fragment: Settings of the backends, and profiles.
        backends: By name.
        store: Client of the Redis that holds the catalog.
        versions: What each URL has, by the names of backends that name versions.
    """

    def __init__(
        self,
        *,
        fragment: EmbeddingsFragment,
        backends: dict[str, Backend],
        store: "Redis",
        versions: Mapping[str, ModelVersions] | None = None,
    ) -> None:
        self._fragment = fragment
        self._store = store
        self._versions = versions or {}
        self._states = [_BackendState(name, fragment.backends[name], backend) for name, backend in backends.items()]
        self._models: dict[str, ServedModel] = {}
        self._round: asyncio.Task[None] | None = None

    @property
    def known(self) -> list[ServedModel]:
        """Models of the backends that are certainly embedding models, because they have a profile."""
        return [model for model in self._models.values() if model.profile is not UNKNOWN]

    async def resolve(self, name: str, deadline: Deadline) -> ServedModel:
        """Return the model of a name, and wait for backends that have not answered yet.

        Raises:
            UnknownModel: Every backend was asked, and none has it.
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
        silent = [state for state in self._states if state.listed is None]
        if not silent:
            available = ", ".join(sorted(self._models)) or "none"
            raise UnknownModel.at("model", f"no backend has {name!r}; available: {available}")
        if all(isinstance(state.error, BackendRefused) for state in silent):
            raise BackendRefused(f"no backend lists its models: {silent[0].error}")
        if deadline.remaining <= RETRY_PAUSE:
            raise BackendUnavailable(f"no backend answers for {name!r}: {silent[0].error}")

    def _find(self, name: str) -> ServedModel | None:
        found = next((self._models[spelling] for spelling in catalog.spellings(name) if spelling in self._models), None)
        if found is not None:
            return found
        state = next((state for state in self._states if state.is_open), None)
        return None if state is None else self._served(state, BackendModel(name=name))

    async def refresh(self) -> None:
        """Ask every backend once and publish the answer; concurrent callers share one round.

        A caller that is cancelled leaves the round to the others.
        """
        if self._round is None or self._round.done():
            self._round = asyncio.get_running_loop().create_task(self._refresh())
        await asyncio.shield(self._round)

    async def _refresh(self) -> None:
        await asyncio.gather(*(self._ask(state) for state in self._states))
        found: dict[str, ServedModel] = {}
        for state in self._states:
            for model in state.listed or []:
                found.setdefault(model.name, self._served(state, model))
        self._models = found
        await self._publish()

    async def keep_fresh(self) -> None:
        """Refresh for ever."""
        while True:
            await asyncio.sleep(self._fragment.refresh)
            await self.refresh()

    async def _ask(self, state: _BackendState) -> None:
        if state.settings.models:
            state.listed = [BackendModel(name=name) for name in state.settings.models]
            return
        urls = state.settings.urls or [""]
        answers = await asyncio.gather(*(self._list(state, url) for url in urls))
        lists = [answer for answer in answers if answer is not None]
        if lists:
            state.listed = _merged(lists, state.listed or [])

    async def _list(self, state: _BackendState, url: str) -> Sequence[BackendModel] | None:
        try:
            models = await state.backend.models(url, timeout=LIST_TIMEOUT)
        except CitadelError as error:
            state.error = error
            return None
        except Exception as error:  # noqa: BLE001  (a defect in one backend must not hide the models of the others)
            state.error = BackendUnavailable(f"{type(error).__name__}: {error}")
            log.warning("backend_not_listed", backend=state.name, error=type(error).__name__)
            return None
        state.is_open = models is None
        if state.name in self._versions:
            self._versions[state.name].record(url, models or [])
        return models or []

    def _served(self, state: _BackendState, model: BackendModel) -> ServedModel:
        profile = self._fragment.profile(model.name) or UNKNOWN
        offered = (state.backend.tokenizer(url, model.name) for url in state.settings.urls or [""])
        tokenizers = tuple(tokenizer for tokenizer in offered if tokenizer is not None)
        info = ModelInfo(
            name=model.name,
            identity=_identity(state.settings, model, profile),
            backend=state.name,
            dimensions=model.dimensions or profile.dimensions,
            max_tokens=model.max_tokens or profile.max_tokens,
            matryoshka=profile.matryoshka,
            accepts_empty=state.backend.accepts_empty,
            query_prefix=profile.query_prefix,
            document_prefix=profile.document_prefix,
            tokenizes=bool(tokenizers),
        )
        pinned = profile.options if state.settings.kind == "ollama" else {}
        return ServedModel(
            info=info,
            profile=profile,
            pinned_options=pinned,
            cuts=state.backend.cuts,
            version=model.version,
            tokenizers=tokenizers,
        )

    async def _publish(self) -> None:
        """Publish the catalog, once some backend has answered: an empty one would refuse every model."""
        if all(state.listed is None for state in self._states):
            return
        is_open = any(state.is_open or state.listed is None for state in self._states)
        try:
            await catalog.publish(self._store, (model.info for model in self._models.values()), is_open=is_open)
        except ERRORS as error:
            log.warning("catalog_not_published", error=type(error).__name__)


def _merged(lists: list[Sequence[BackendModel]], before: Sequence[BackendModel]) -> list[BackendModel]:
    """Return each model of several servers once, in the version that most of them have; log where versions differ.

    Where two versions are as common, the one from before stays, or the first server's counts.
    """
    current = {model.name: model.version for model in before}
    found: dict[str, list[BackendModel]] = {}
    for model in (model for models in lists for model in models):
        found.setdefault(model.name, []).append(model)
    return [_commonest(models, current.get(name)) for name, models in found.items()]


def _commonest(models: Sequence[BackendModel], current: str | None) -> BackendModel:
    counts = Counter(model.version for model in models)
    if len(counts) > 1:
        log.warning("model_versions_differ", model=models[0].name, versions=[str(version) for version in counts])
    return max(models, key=lambda model: (counts[model.version], model.version == current))


def _identity(settings: BackendSettings, model: BackendModel, profile: ModelProfile) -> str:
    """Return the name under which vectors are cached: whatever may change the vector of a text is in it."""
    version = model.version or settings.kind
    version = f"{version}-{settings.revision}" if settings.revision else version
    pinned = profile.options if settings.kind == "ollama" else {}
    fixed = {"options": pinned, "max_tokens": model.max_tokens or profile.max_tokens}
    if any(fixed.values()):
        canonical = orjson.dumps(fixed, option=orjson.OPT_SORT_KEYS)
        version = f"{version}-{hashlib.blake2b(canonical, digest_size=4).hexdigest()}"
    return re.sub(r"[^\w.@/-]", "_", f"{model.name}@{version}")
