"""A thread pool that is fair between runs: a run with much to do does not hold up the steps of others."""

import functools
import threading
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any


@dataclass
class _Queue:
    """The calls of one key.

    Attributes:
        waiting: Calls that have not begun, oldest first.
        served: Threads that run a call of the key, or are about to.
    """

    waiting: deque[Callable[[], Any]] = field(default_factory=deque)
    served: int = 0


class FairThreadPool:
    """A pool that serves keys in turn; calls with the same key share at most `per_key` threads. Thread-safe.

    More threads for one run would only wait for the lock of its row.

    Args:
        threads: Number of threads.
        per_key: Threads that serve one key at once.
        name: Prefix of the threads' names.
    """

    def __init__(self, threads: int, *, per_key: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._per_key = per_key
        self._queues: dict[Hashable, _Queue] = {}
        self._changed = threading.Condition()
        self._closed = False

    def submit(self, key: Hashable, act: Callable[..., Any], *arguments: Any) -> None:
        """Run a callable in the pool, after those that were submitted before with the same key.

        Nobody is told of an exception: `act` handles its own.

        Raises:
            RuntimeError: The threads are ending.
        """
        with self._changed:
            if self._closed:
                raise RuntimeError("the threads are ending")
            queue = self._queues.setdefault(key, _Queue())
            queue.waiting.append(functools.partial(act, *arguments))
            if queue.served < self._per_key:
                queue.served += 1
                self._pool.submit(self._serve, key, queue)

    def close(self, *, finish: bool) -> None:
        """Stop the threads; run the waiting calls first if `finish`, else drop them."""
        with self._changed:
            if finish:
                self._changed.wait_for(lambda: not self._queues)
            self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _serve(self, key: Hashable, queue: _Queue) -> None:
        """Run the key's oldest call; its next one queues behind those of all other keys."""
        with self._changed:
            act = queue.waiting.popleft()
        try:
            act()
        finally:
            self._end_turn(key, queue)

    def _end_turn(self, key: Hashable, queue: _Queue) -> None:
        with self._changed:
            if len(queue.waiting) > queue.served - 1 and not self._closed:
                self._pool.submit(self._serve, key, queue)
                return
            queue.served -= 1
            if not queue.served:
                del self._queues[key]
                self._changed.notify_all()
