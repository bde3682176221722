"""Watches the processes of a fuzzed server: all live on, and their memory stays flat after a warm-up."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.fuzz.server import FuzzedServer

MOST_GROWTH = 128 * 2**20
"""Bytes that a process may grow by after the warm-up: what some large messages and their garbage take at once."""


class Watch:
    """The processes at the beginning, and their memory after the warm-up.

    Args:
        server: The server.
        warm_up: Number of requests or messages after which caches and pools are full.
    """

    def __init__(self, server: FuzzedServer, warm_up: int) -> None:
        self._server, self._warm_up = server, warm_up
        self._processes = server.processes()
        self._memory: dict[int, int] | None = None

    def progress(self, sent: int) -> None:
        """Note that so many have been sent."""
        if self._memory is None and sent >= self._warm_up:
            self._memory = self._server.memory()

    def judge(self) -> None:
        """Fail if a process has ended or grown."""
        assert self._server.processes() == self._processes
        assert self._memory is not None, "the warm-up has not ended"
        after = self._server.memory()
        grown = {f"{self._processes[pid]} {pid}": after[pid] - before for pid, before in self._memory.items()}
        print("grown by MiB:", {name: round(size / 2**20, 1) for name, size in grown.items()})
        assert max(grown.values()) < MOST_GROWTH, grown


@contextmanager
def watched(server: FuzzedServer, *, warm_up: int) -> Iterator[Watch]:
    """Watch the server while a block sends requests or messages."""
    watch = Watch(server, warm_up)
    yield watch
    watch.judge()
