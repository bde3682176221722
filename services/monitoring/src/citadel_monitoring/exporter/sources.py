"""Sources read at a scrape, in parallel: none can delay or fail the others."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass

import structlog

from citadel_monitoring.exporter.metrics import READ_ERRORS, READ_SECONDS, UP, Sample

log = structlog.get_logger(__name__)
Samples = Sequence[Sample]


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """A reading that was started; `until` (monotonic seconds) is when scrapes stop waiting for it."""

    future: "Future[Samples]"
    began: float
    until: float


class Source:
    """One store, read by at most one thread at a time; simultaneous scrapes share a reading.

    Args:
        name: Its label.
        read: Reads it; may raise anything, and should end by its own timeouts.
        timeout: Longest seconds a scrape waits for it.
    """

    def __init__(self, name: str, read: Callable[[], Samples], *, timeout: float) -> None:
        self.name = name
        self._read = read
        self._timeout = timeout
        self._lock = threading.Lock()
        self._reading: _Reading | None = None
        self._errors = 0
        self._is_up = True

    def start(self) -> Callable[[], Samples]:
        """Start a reading, or join the one that runs; return a function that waits for its samples."""
        with self._lock:
            # A reading that hangs is joined and not repeated, so a store that hangs costs one thread, not one a scrape.
            if self._reading is None or self._reading.future.done():
                now = time.monotonic()
                self._reading = _Reading(future=Future(), began=now, until=now + self._timeout)
                threading.Thread(target=self._run, args=(self._reading,), name=self.name, daemon=True).start()
            reading = self._reading
        return lambda: self._samples(reading)

    def _run(self, reading: _Reading) -> None:
        try:
            reading.future.set_result(self._read())
        except Exception as error:  # noqa: BLE001  (a source that fails is reported by its metric)
            reading.future.set_exception(error)

    def _samples(self, reading: _Reading) -> Samples:
        problem: Exception | None = None
        found: Samples = ()
        try:
            found = reading.future.result(max(0.0, reading.until - time.monotonic()))
        except Exception as error:  # noqa: BLE001  (the reading's own, or that it takes too long)
            problem = error
        seconds = time.monotonic() - reading.began
        return [*found, *self._state(problem, seconds)]

    def _state(self, problem: Exception | None, seconds: float) -> Iterable[Sample]:
        with self._lock:
            self._errors += problem is not None
            changed, self._is_up = self._is_up != (problem is None), problem is None
            errors = self._errors
        if changed:
            self._log_change(problem)
        yield Sample(UP, (self.name,), float(problem is None))
        yield Sample(READ_SECONDS, (self.name,), seconds)
        yield Sample(READ_ERRORS, (self.name,), errors)

    def _log_change(self, problem: Exception | None) -> None:
        if problem is None:
            log.info("source_up", source=self.name)
        else:
            error = "timeout" if isinstance(problem, NotYet) else type(problem).__name__
            log.warning("source_down", source=self.name, error=error)


def read_all(sources: Iterable[Source]) -> Iterator[Sample]:
    """Yield the samples of all sources, which are read in parallel."""
    waits = [source.start() for source in sources]
    for wait in waits:
        yield from wait()
