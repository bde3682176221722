"""An event loop on which waiting takes no time: when nothing can run, the clock moves to the next timer."""

import asyncio
import contextlib
import selectors
import types
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar
from unittest import mock

from structlog.testing import capture_logs

from citadel_common import deadline
from citadel_embeddings import breaker, calls, endpoints, flights

T = TypeVar("T")
USERS = (deadline, breaker, calls, endpoints, flights)


class Clock:
    """Seconds that pass only when everybody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now


class _Selector(selectors.DefaultSelector):  # type: ignore[valid-type, misc]
    clock: Clock

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events:
            if timeout is None:
                raise RuntimeError("everybody waits, and nothing will ever happen")
            self.clock.now += max(timeout, 0.0)
        return events


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: Clock) -> None:
        selector = _Selector()
        selector.clock = clock
        super().__init__(selector)
        self._virtual = clock

    def time(self) -> float:
        return self._virtual.now


@contextlib.contextmanager
def _patched(clock: Clock) -> Iterator[None]:
    import time

    shim = types.SimpleNamespace(**{**vars(time), "monotonic": clock.monotonic})
    with contextlib.ExitStack() as stack:
        for module in USERS:
            stack.enter_context(mock.patch.object(module, "time", shim))
        yield


def run_virtually(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, in virtual time."""
    clock = Clock()
    with capture_logs(), _patched(clock), asyncio.Runner(loop_factory=lambda: _Loop(clock)) as runner:
        return runner.run(coroutine)
