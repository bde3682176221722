"""Answers of the embeddings workers: taken from their list by every orchestration worker, several at once."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
WAIT = 1.0
"""Seconds one look at the list waits."""
PAUSE = 0.5
"""Seconds after which a broker that does not answer is asked again."""


class Answers:
    """Takes answers from `start` to `stop`; one that is lost with a worker is asked for again by the engine."""

    def __init__(self, client: "Redis", take: Callable[[StepEmbedded], None]) -> None:
        self._client = client
        self._take = take
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
        self._room.acquire()
        entry: Any = None
        try:
            entry = self._client.blpop([EMBEDDED], timeout=WAIT)
        finally:
            if entry is None:
                self._room.release()
        if entry is not None:
            self._threads.submit(self._handle, entry[1])

    def _handle(self, entry: bytes) -> None:
        try:
            self._take(StepEmbedded.model_validate_json(entry))
        except ValidationError as error:
            log.error("answer_malformed", error=str(error.errors(include_input=False)[:1]))
        except Exception as error:
            log.warning("answer_dropped", error=type(error).__name__, exc_info=not isinstance(error, ERRORS))
        finally:
            self._room.release()
