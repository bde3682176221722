"""Answers of the embeddings workers: taken from their list by every orchestration worker, run by run in turn."""

import threading
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog
from pydantic import ValidationError

from citadel_common.stores.redis import ERRORS
from citadel_contracts.workflows import EMBEDDED, StepEmbedded
from citadel_orchestration.engine.fair_threads import FairThreads

if TYPE_CHECKING:
    from redis import Redis

log = structlog.get_logger(__name__)
THREADS = 8
PER_RUN = 2
"""Threads for the answers of one run: while one records, another makes ready."""
MOST_RUNS = 32
"""Runs whose answers one worker holds: what others can take is left to them."""
MOST_HELD = 1024
"""Answers held, most of which are then of runs that fan out wide: those of other runs are found behind them."""
MOST_BYTES = 32 * 2**20
"""Bytes of them."""
MOST = 8
"""Answers taken by one look."""
WAIT = 1.0
"""Seconds one look at the list waits."""
PAUSE = 0.5
"""Seconds after which a broker that does not answer is asked again."""


class Answers:
    """Takes answers from `start` to `stop`; one that is lost with a worker is asked for again by the engine."""

    def __init__(self, client: "Redis", take: Callable[[StepEmbedded], None]) -> None:
        self._client = client
        self._take = take
        self._held: Counter[str] = Counter()
        self._bytes = 0
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._threads = FairThreads(THREADS, per_key=PER_RUN, name="answers")
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends, once what was taken is worked off."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2 * WAIT)
        self._threads.close(finish=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._look()
            except ERRORS as error:
                log.warning("answers_unavailable", error=type(error).__name__)
                self._stop.wait(PAUSE)

    def _look(self) -> None:
        with self._changed:
            if not self._changed.wait_for(self._has_room, timeout=WAIT):
                return
        for entry in self._taken():
            self._receive(entry)

    def _taken(self) -> list[bytes]:
        """What lies there, or the next answer to come; none after a while."""
        found: Any = self._client.lpop(EMBEDDED, MOST)
        if found:
            return list(found)
        entry: Any = self._client.blpop([EMBEDDED], timeout=WAIT)
        return [] if entry is None else [entry[1]]

    def _receive(self, entry: bytes) -> None:
        try:
            message = StepEmbedded.model_validate_json(entry)
        except ValidationError as error:
            log.error("answer_malformed", error=str(error.errors(include_input=False)[:1]))
            return
        self._hold(message.run_id, 1, len(entry))
        self._threads.submit(message.run_id, self._handle, message, len(entry))

    def _handle(self, message: StepEmbedded, size: int) -> None:
        try:
            self._take(message)
        except Exception as error:
            log.warning("answer_dropped", error=type(error).__name__, exc_info=not isinstance(error, ERRORS))
        finally:
            self._hold(message.run_id, -1, -size)

    def _has_room(self) -> bool:
        return len(self._held) < MOST_RUNS and self._held.total() < MOST_HELD and self._bytes < MOST_BYTES

    def _hold(self, run_id: str, count: int, size: int) -> None:
        with self._changed:
            self._held[run_id] += count
            self._bytes += size
            if not self._held[run_id]:
                del self._held[run_id]
            self._changed.notify()
