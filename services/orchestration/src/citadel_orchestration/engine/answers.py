"""Answers of the embeddings workers: taken from their list by every orchestration worker, several at once."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import structlog
from pydantic import ValidationError

from citadel_common.contracts.workflows import EMBEDDED, StepEmbedded
from citadel_common.redis import ERRORS

if TYPE_CHECKING:
    from redis import Redis

log = structlog.get_logger(__name__)
THREADS = 8
AT_ONCE = 32
"""Answers held by one worker: what others can take is left to them."""
GROUP = 8
"""Answers taken by one look and handled by one thread: what follows them is published together."""
WAIT = 1.0
"""Seconds one look at the list waits."""
PAUSE = 0.5
"""Seconds after which a broker that does not answer is asked again."""


class Answers:
    """Takes answers from `start` to `stop`; one that is lost with a worker is asked for again by the engine.

    Args:
        client: Client of the broker's Redis.
        take: Goes on with a step.
        together: Joins the messages that are sent within a block.
    """

    def __init__(
        self,
        client: "Redis",
        take: Callable[[StepEmbedded], None],
        together: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._client = client
        self._take = take
        self._together = together
        self._room = threading.Semaphore(AT_ONCE)
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="answers")
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends, once what was taken is worked off."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2 * WAIT)
        self._threads.shutdown(wait=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._look()
            except ERRORS as error:
                log.warning("answers_unavailable", error=type(error).__name__)
                self._stop.wait(PAUSE)

    def _look(self) -> None:
        room = self._acquire()
        entries: list[bytes] = []
        try:
            entries = self._taken(room)
        finally:
            if room > len(entries):
                self._room.release(room - len(entries))
        if entries:
            self._threads.submit(self._handle_all, entries)

    def _acquire(self) -> int:
        """Room for at least one answer, waited for, and for more where there is some."""
        self._room.acquire()
        return 1 + sum(self._room.acquire(blocking=False) for _ in range(GROUP - 1))

    def _taken(self, room: int) -> list[bytes]:
        """What lies there, or the next answer to come; none after a while."""
        found: Any = self._client.lpop(EMBEDDED, room)
        if found:
            return list(found)
        entry: Any = self._client.blpop([EMBEDDED], timeout=WAIT)
        return [] if entry is None else [entry[1]]

    def _handle_all(self, entries: list[bytes]) -> None:
        try:
            with self._together():
                for entry in entries:
                    self._handle(entry)
        finally:
            self._room.release(len(entries))

    def _handle(self, entry: bytes) -> None:
        try:
            self._take(StepEmbedded.model_validate_json(entry))
        except ValidationError as error:
            log.error("answer_malformed", error=str(error.errors(include_input=False)[:1]))
        except Exception as error:
            log.warning("answer_dropped", error=type(error).__name__, exc_info=not isinstance(error, ERRORS))
