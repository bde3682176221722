"""Loading of models, the only time when Ollama answers that it is busy."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tests.doubles.base.caller import Caller
from tests.doubles.base.refusals import COMMON, RefusalError

# a change of one of these starts the runner anew
RUNNER_OPTIONS = frozenset({"num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap"})


class Loader:
    """Loaded models and their options; one loads at a time."""

    def __init__(self, max_queue: int) -> None:
        self.loads: Counter[str] = Counter()
        self._max_queue = max_queue
        self._loaded: dict[str, dict[str, Any]] = {}
        self._busy: asyncio.Future[None] | None = None
        self._queued = 0

    @property
    def loaded(self) -> tuple[str, ...]:
        """The names of the loaded models."""
        return tuple(self._loaded)

    def unload(self, model: str) -> None:
        """Forget a model, so that its next use loads it."""
        self._loaded.pop(model, None)

    def clear(self) -> None:
        """Unload every model and count from 0."""
        self._loaded.clear()
        self.loads.clear()

    async def ensure(self, model: str, options: Mapping[str, Any], caller: Caller, seconds: float) -> float:
        """Load a model with these options, unless it is; return the seconds that it took.

        The request is refused when too many wait for a load already.
        """
        begin = time.monotonic()
        wanted = {name: value for name, value in options.items() if name in RUNNER_OPTIONS}
        while self._busy is not None:
            await self._queue(self._busy, caller)
        if self._loaded.get(model) != wanted:
            await self._load(model, wanted, caller, seconds)
        return time.monotonic() - begin

    async def _queue(self, busy: asyncio.Future[None], caller: Caller) -> None:
        if self._queued >= self._max_queue:
            raise RefusalError(COMMON["busy503"])
        self._queued += 1
        try:
            await caller.until(busy)
        finally:
            self._queued -= 1

    async def _load(self, model: str, wanted: dict[str, Any], caller: Caller, seconds: float) -> None:
        self.unload(model)
        self.loads[model] += 1
        self._busy = asyncio.get_running_loop().create_future()
        try:
            await caller.sleep(seconds)
            self._loaded[model] = wanted
        finally:
            self._busy.set_result(None)
            self._busy = None
