"""The PostgreSQL watch: one thread probes the server, so that requests do not pile up before one that hangs."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress

import psycopg

from citadel_common.errors import StoreUnavailable
from citadel_common.stores.db import PostgresConnection, open_connection
from citadel_common.stores.postgres_errors import ERRORS, Kind, described, kind_of
from citadel_common.stores.postgres_target import PostgresTarget
from citadel_common.telemetry import NULL_METRICS, Metrics, names

PATIENCE = 2.0
"""Seconds that a probe waits to connect, and again for its answer."""
RETRY = 0.5
"""Seconds between probes of a server that is down."""
MOMENT = 0.25
"""Seconds that the request which triggers a probe waits for its success; other requests do not wait."""


class PostgresWatch:
    """Knows whether the server is down, and lets requests fail at once while it is; thread-safe.

    Args:
        target: The server.
        metrics: Shows whether requests are refused.
    """

    def __init__(self, target: PostgresTarget, *, metrics: Metrics = NULL_METRICS) -> None:
        self._target = target
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="postgres-watch")
        self._lock = threading.Lock()
        self._probe: Future[None] | None = None
        self._probed_at = float("-inf")
        self._connection: PostgresConnection | None = None
        self._problem: str | None = None
        self._metrics = metrics
        self._tell()

    def check(self) -> "Future[None]":
        """Return the probe under way, or a new one; its result raises StoreUnavailable if the server is down."""
        with self._lock:
            if self._probe is None or self._probe.done():
                self._probe = self._thread.submit(self._ask)
            return self._probe

    @property
    def _is_due(self) -> bool:
        """Return whether a server that is down is to be probed again; False while a probe is under way."""
        idle = self._probe is None or self._probe.done()
        return idle and time.monotonic() - self._probed_at > RETRY

    def suspect(self) -> None:
        """Probe the server because a call has failed."""
        with suppress(RuntimeError):  # the process ends
            self.check()

    @property
    def is_down(self) -> bool:
        """Return whether the last probe failed."""
        return self._problem is not None

    def admit(self) -> None:
        """Let a request through, or refuse it.

        Raises:
            StoreUnavailable: The server is known to be down; it is probed meanwhile.
        """
        if self._problem is None:
            return
        if self._is_due:
            with suppress(NotYet, StoreUnavailable):
                self.check().result(MOMENT)
        if self._problem is not None:
            raise StoreUnavailable(self._problem)

    def close(self) -> None:
        """End the thread and its connection."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._connection is not None:
            self._connection.close()

    def _ask(self) -> None:
        try:
            self._round_trip()
        except psycopg.Error as error:
            problem, kind = f"{self._target.shown} {_what(error)}", kind_of(error)
            # A server without a free connection serves those that are open: no request is refused for it.
            self._problem = None if kind is Kind.BUSY else problem
            raise ERRORS[kind](problem) from None
        else:
            self._problem = None
        finally:
            self._probed_at = time.monotonic()
            self._tell()

    def _tell(self) -> None:
        self._metrics.set(names.BREAKERS_OPEN, self.is_down, backend="postgresql")

    def _round_trip(self) -> None:
        """Make a round trip on the open connection, or on a new one if the server has closed it."""
        if self._connection is not None:
            try:
                self._connection.execute("SELECT 1")
            except psycopg.Error as error:
                self._connection.close()
                self._connection = None
                if _has_timed_out(error):
                    raise
            else:
                return
        self._connection = open_connection(self._target, patience=PATIENCE)
        self._connection.refuse_standby()


def _has_timed_out(error: psycopg.Error) -> bool:
    return isinstance(error, psycopg.errors.ConnectionTimeout) or "timeout" in str(error)


def _what(error: psycopg.Error) -> str:
    """Return the problem without the users and hosts that libpq names."""
    if _has_timed_out(error):
        return f"accepts connections and does not answer within {PATIENCE:.0f} s"
    if "authentication failed" in str(error):
        return "refuses the credentials"
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return "is a read-only standby"
    return f"does not answer: {described(error)}"
