"""Threads that take turns between runs: a run with much to do keeps no other from its next step."""

import functools
import threading
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any


@dataclass
class _Line:
    """What is to be done for one key, and how many threads are on it or in line for it."""

    waiting: deque[Callable[[], Any]] = field(default_factory=deque)
    served: int = 0


class FairThreads:
    """A pool that serves keys in turn, each by some of its threads at most; thread-safe.

    Transitions of one run wait for one another anyway: more threads for it would only stand in line at its row.

    Args:
        threads: How many.
        per_key: Threads that serve one key at once.
        name: Of the threads.
    """

    def __init__(self, threads: int, *, per_key: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._per_key = per_key
        self._lines: dict[Hashable, _Line] = {}
        self._changed = threading.Condition()
        self._closed = False

    def submit(self, key: Hashable, act: Callable[..., Any], *arguments: Any) -> None:
        """Has something done after what was submitted for the same key before; its exceptions are its own business.

        Raises:
            RuntimeError: The threads are ending.
        """
        with self._changed:
            if self._closed:
                raise RuntimeError("the threads are ending")
            line = self._lines.setdefault(key, _Line())
            line.waiting.append(functools.partial(act, *arguments))
            if line.served < self._per_key:
                line.served += 1
                self._pool.submit(self._serve, key, line)

    def close(self, *, finish: bool) -> None:
        """Ends; what waits is done first if `finish`, and else never."""
        with self._changed:
            if finish:
                self._changed.wait_for(lambda: not self._lines)
            self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _serve(self, key: Hashable, line: _Line) -> None:
        """One turn; the next is behind those of all other keys."""
        with self._changed:
            act = line.waiting.popleft()
        try:
            act()
        finally:
            self._end_turn(key, line)

    def _end_turn(self, key: Hashable, line: _Line) -> None:
        with self._changed:
            if len(line.waiting) > line.served - 1 and not self._closed:
                self._pool.submit(self._serve, key, line)
                return
            line.served -= 1
            if not line.served:
                del self._lines[key]
                self._changed.notify_all()
