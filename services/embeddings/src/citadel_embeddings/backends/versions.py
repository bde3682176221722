"""Versions of the models that each URL of a backend has, as the URL itself has said last."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from citadel_common.errors import CitadelError
from citadel_embeddings.backends.base import Backend, BackendModel

TRUSTED = 0.1
"""Seconds for which a version counts. No server replaces a model within them and serves it without having to load it,
and an answer for which a model was loaded is always followed by a question."""
LIST_TIMEOUT = 5.0
"""Seconds that a server may take to list its models."""


class ModelVersions:
    """What the URLs of one backend have; belongs to one event loop.

    Args:
        backend: The protocol.
        clock: The monotonic clock.
    """

    def __init__(self, backend: Backend, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._backend = backend
        self._clock = clock
        self._versions: dict[str, dict[str, str | None]] = {}
        self._asked_at: dict[str, float] = {}
        self._asking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def record(self, url: str, models: Sequence[BackendModel], *, asked_at: float | None = None) -> None:
        """Note what a URL lists; `asked_at` is when it was asked, by default now, which is trusted for a moment."""
        self._versions[url] = {model.name: model.version for model in models}
        self._asked_at[url] = self._clock() if asked_at is None else asked_at

    def may_serve(self, url: str, model: str, version: str | None) -> bool:
        """Return whether a URL has this version of a model, as far as is known."""
        if version is None or url not in self._versions:
            return True
        return self._versions[url].get(model, version) == version

    async def served(self, url: str, model: str, version: str, *, was_loaded: bool) -> bool | None:
        """Return whether the answer that has just come from a URL is of this version; None if the URL does not say.

        Args:
            url: The server.
            model: Name of the model.
            version: What its vectors are to be stored under.
            was_loaded: Whether the model was loaded for the answer.
        """
        answered_at = self._clock()
        trusted = 0.0 if was_loaded else TRUSTED
        if answered_at - self._asked_at.get(url, float("-inf")) >= trusted:
            async with self._asking[url]:  # the questions of all who wait for it are one
                if self._asked_at.get(url, float("-inf")) < answered_at and not await self._ask(url):
                    return None
        return self._versions[url].get(model) == version

    async def _ask(self, url: str) -> bool:
        asked_at = self._clock()
        try:
            models = await self._backend.models(url, timeout=LIST_TIMEOUT)
        except CitadelError:
            return False
        self.record(url, models or [], asked_at=asked_at)
        return models is not None
