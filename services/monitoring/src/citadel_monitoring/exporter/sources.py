"""What is read at a scrape: several sources at once, none of which can hold up or fail the others."""

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
class _Flight:
    """A reading under way; `until` (monotonic seconds) is when nobody waits for it any more."""

    future: "Future[Samples]"
    began: float
    until: float


class Source:
    """One store, read by at most one thread at a time; scrapes that come together share a reading.

    Args:
        name: Its label.
        read: Reads it; may raise anything, and should end by its own timeouts.
        timeout: Seconds a scrape waits for it at most.
    """

    def __init__(self, name: str, read: Callable[[], Samples], *, timeout: float) -> None:
        self.name = name
        self._read = read
        self._timeout = timeout
        self._lock = threading.Lock()
        self._flight: _Flight | None = None
        self._errors = 0
        self._is_up = True

    def begin(self) -> Callable[[], Samples]:
        """Starts a reading, or joins the one under way; the answer waits for it."""
        with self._lock:
            if self._flight is None or self._flight.future.done():
                now = time.monotonic()
                self._flight = _Flight(future=Future(), began=now, until=now + self._timeout)
                threading.Thread(target=self._run, args=(self._flight,), name=self.name, daemon=True).start()
            flight = self._flight
        return lambda: self._samples(flight)

    def _run(self, flight: _Flight) -> None:
        try:
            flight.future.set_result(self._read())
        except Exception as error:  # noqa: BLE001  (a source that fails is told by its metric)
            flight.future.set_exception(error)

    def _samples(self, flight: _Flight) -> Samples:
        problem: Exception | None = None
        found: Samples = ()
        try:
            found = flight.future.result(max(0.0, flight.until - time.monotonic()))
        except Exception as error:  # noqa: BLE001  (the reading's own, or that it takes too long)
            problem = error
        seconds = time.monotonic() - flight.began
        return [*found, *self._verdict(problem, seconds)]

    def _verdict(self, problem: Exception | None, seconds: float) -> Iterable[Sample]:
        with self._lock:
            self._errors += problem is not None
            changed, self._is_up = self._is_up != (problem is None), problem is None
            errors = self._errors
        if changed:
            self._tell(problem)
        yield Sample(UP, (self.name,), float(problem is None))
        yield Sample(READ_SECONDS, (self.name,), seconds)
        yield Sample(READ_ERRORS, (self.name,), errors)

    def _tell(self, problem: Exception | None) -> None:
        if problem is None:
            log.info("source_up", source=self.name)
        else:
            error = "timeout" if isinstance(problem, NotYet) else type(problem).__name__
            log.warning("source_down", source=self.name, error=error)


def read_all(sources: Iterable[Source]) -> Iterator[Sample]:
    """The samples of all sources, which are read in parallel."""
    waits = [source.begin() for source in sources]
    for wait in waits:
        yield from wait()
