"""The consumer of the embeddings workers' answers: every orchestration worker takes them from one list."""

import threading
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog
from pydantic import ValidationError

from citadel_common.errors import CitadelError, StoreUnavailable
from citadel_common.stores.redis import ERRORS
from citadel_contracts.workflows import EMBEDDED, StepEmbedded
from citadel_orchestration.engine.fair_threads import FairThreadPool
from citadel_orchestration.engine.outcomes import internal_error
from citadel_orchestration.step_types import Output, StepType

if TYPE_CHECKING:
    from redis import Redis

log = structlog.get_logger(__name__)
THREADS = 8
PER_RUN = 2
"""Threads for the answers of one run: while one waits for PostgreSQL, another decodes."""
MOST_RUNS = 32
"""Runs whose answers one worker holds; further ones are left to other workers."""
MOST_HELD = 1024
"""Answers held: enough to reach past those of a run that fans out wide."""
MOST_BYTES = 32 * 2**20
"""Bytes of the answers held."""
MOST = 8
"""Answers taken by one command."""
LARGE = 2**20
"""Bytes of an answer after which they are taken one by one: the next may be as large."""
WAIT = 1.0
"""Seconds that one command waits for an answer."""
PAUSE = 0.5
"""Seconds between commands to a broker that does not answer."""


class AnswerConsumer:
    """Takes answers from `start` to `stop`. The engine asks again for one that is lost with its worker.

    Args:
        client: Of the broker's Redis.
        take: Goes on with the step of an answer; called in threads that take turns between runs.
    """

    def __init__(self, client: "Redis", take: Callable[[StepEmbedded], None]) -> None:
        self._client = client
        self._take = take
        self._held: Counter[str] = Counter()
        self._bytes = 0
        self._most = MOST
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._is_refused = False
        self._threads = FairThreadPool(THREADS, per_key=PER_RUN, name="answers")
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, once the answers it has taken are worked off."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2 * WAIT)
        self._threads.close(finish=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._poll()
            except ERRORS as error:
                log.warning("answers_unavailable", error=type(error).__name__)
                self._stop.wait(PAUSE)

    def _poll(self) -> None:
        with self._changed:
            if not self._changed.wait_for(self._has_room, timeout=WAIT):
                return
        for entry in self._pop():
            self._receive(entry)

    def _pop(self) -> list[bytes]:
        """Return the answers waiting in the list, or the next one to come; none if `WAIT` passes without any."""
        found: Any = self._client.lpop(EMBEDDED, self._most)
        if found:
            self._most = MOST if max(map(len, found)) < LARGE else 1
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
        self._threads.submit(message.run_id, self._handle, message, entry)

    def _handle(self, message: StepEmbedded, entry: bytes) -> None:
        try:
            self._go_on(message)
        except StoreUnavailable as error:
            self._is_refused = True
            self._put_back(entry, error)
        except Exception as error:
            log.warning("answer_dropped", error=type(error).__name__, exc_info=not isinstance(error, ERRORS))
        finally:
            self._hold(message.run_id, -1, -len(entry))

    def _go_on(self, message: StepEmbedded) -> None:
        if self._stop.is_set() and self._is_refused:  # each try may wait for PostgreSQL's whole timeout
            raise StoreUnavailable
        self._take(message)
        self._is_refused = False

    def _put_back(self, entry: bytes, error: StoreUnavailable) -> None:
        """Put an answer back that PostgreSQL does not take now: any worker takes it later."""
        try:
            self._client.rpush(EMBEDDED, entry)
        except ERRORS:
            log.warning("answer_dropped", error=error.code)
        else:
            log.info("answer_put_back", error=error.code)

    def _has_room(self) -> bool:
        return len(self._held) < MOST_RUNS and self._held.total() < MOST_HELD and self._bytes < MOST_BYTES

    def _hold(self, run_id: str, count: int, size: int) -> None:
        with self._changed:
            self._held[run_id] += count
            self._bytes += size
            if not self._held[run_id]:
                del self._held[run_id]
            self._changed.notify()


def output_of(type_: StepType[Any], message: StepEmbedded) -> tuple[Output | None, CitadelError | None]:
    """Return the output that a type makes of an answer, or the error that the step fails with, or neither."""
    try:
        return type_.answered(message.echo or {}, message.parts), None
    except CitadelError as error:
        return None, error
    except Exception as error:
        log.exception("step_crashed", run_id=message.run_id, step_id=message.step_id)
        return None, internal_error(error)
