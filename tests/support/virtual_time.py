"""An event loop on which waiting takes no time: when nothing can run, the clock moves to the next timer."""

import asyncio
import contextlib
import selectors
import time
import types
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar
from unittest import mock

from structlog.testing import capture_logs

from citadel_common import deadline

T = TypeVar("T")


class Clock:
    """Seconds that pass only when everybody waits."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.step = 0.0

    def monotonic(self) -> float:
        """Return the time; each look takes `step` seconds, as work does."""
        self.now += self.step
        return self.now


CLOCK = Clock()
"""The clock of the virtual loop, for the objects that take one; it goes on from test to test."""


class _Selector(selectors.DefaultSelector):  # type: ignore[valid-type, misc]
    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events:
            if timeout is None:
                raise RuntimeError("everybody waits, and nothing will ever happen")
            CLOCK.now += max(timeout, 0.0)
        return events


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__(_Selector())

    def time(self) -> float:
        return CLOCK.now


@contextlib.contextmanager
def _virtual_deadlines() -> Iterator[None]:
    """Let deadlines, which read the clock by themselves, pass in virtual time."""
    shim = types.SimpleNamespace(**{**vars(time), "monotonic": CLOCK.monotonic})
    with mock.patch.object(deadline, "time", shim):
        yield


def run_virtually(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, in virtual time."""
    with capture_logs(), _virtual_deadlines(), asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(coroutine)
