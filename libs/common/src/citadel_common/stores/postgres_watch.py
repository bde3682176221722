"""Whether PostgreSQL answers: asked by one thread, so that neither probes nor requests pile up before a hung server."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from pydantic import SecretStr

from citadel_common.errors import StoreUnavailable
from citadel_common.stores.redis import redacted
from citadel_common.telemetry import NULL_METRICS, Metrics, names

PATIENCE = 2.0
"""Seconds a probe waits to connect, and again for its answer."""
RETRY = 0.5
"""Seconds between probes of a server that is down."""
MOMENT = 0.25
"""Seconds the request that has a server probed waits for it to be found back; others do not wait."""


class BoundedConnection(psycopg.Connection[Any]):
    """A connection on which no call waits longer than `patience` seconds, whatever the server does.

    The server's own statement timeout ends statements; this ends the wait for a server that hangs as a whole, and
    the connection with it.
    """

    patience = 60.0

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Psycopg's way of performing any call."""
        try:
            return super().wait(gen, interval, self.patience if timeout is None else timeout)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.pgconn.finish()
            raise


def bounded(patience: float) -> type[BoundedConnection]:
    """The class of connections that wait so many seconds."""
    return type("BoundedConnection", (BoundedConnection,), {"patience": patience})


class PostgresWatch:
    """Knows whether the server is down, and lets requests fail at once while it is; thread-safe.

    Args:
        dsn: Where it is.
        name: Of the application, as the server shows it.
        metrics: Is told whether requests are kept away.
    """

    def __init__(self, dsn: SecretStr, *, name: str, metrics: Metrics = NULL_METRICS) -> None:
        self._dsn = dsn
        self._name = name
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="postgres-watch")
        self._lock = threading.Lock()
        self._probe: Future[None] | None = None
        self._probed_at = float("-inf")
        self._connection: psycopg.Connection[Any] | None = None
        self._problem: str | None = None
        self._metrics = metrics
        self._tell()

    def check(self) -> "Future[None]":
        """The probe under way, or a new one; its result raises StoreUnavailable when the server is down."""
        with self._lock:
            if self._probe is None or self._probe.done():
                self._probe = self._thread.submit(self._ask)
            return self._probe

    @property
    def _is_due(self) -> bool:
        """Whether a server that is down may be probed again; not while that is being done."""
        idle = self._probe is None or self._probe.done()
        return idle and time.monotonic() - self._probed_at > RETRY

    def suspect(self) -> None:
        """Tells that a call has failed; whether the server is down shows soon."""
        with suppress(RuntimeError):  # the process ends
            self.check()

    @property
    def is_down(self) -> bool:
        """Whether the last probe failed."""
        return self._problem is not None

    def admit(self) -> None:
        """Lets a request through.

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
        """Ends the thread and its connection."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._connection is not None:
            self._connection.close()

    def _ask(self) -> None:
        try:
            self._round_trip()
        except psycopg.Error as error:
            self._problem = f"{redacted(self._dsn)} {_what(error)}"
            raise StoreUnavailable(self._problem) from None
        else:
            self._problem = None
        finally:
            self._probed_at = time.monotonic()
            self._tell()

    def _tell(self) -> None:
        self._metrics.set(names.BREAKERS_OPEN, self.is_down, backend="postgresql")

    def _round_trip(self) -> None:
        """On the open connection, or on a new one where the server has closed that."""
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
        found = bounded(PATIENCE).connect(
            self._dsn.get_secret_value(),
            autocommit=True,
            connect_timeout=int(PATIENCE),
            application_name=f"citadel-{self._name}-watch",
        )
        found.execute("SELECT 1")
        self._connection = found


def _has_timed_out(error: psycopg.Error) -> bool:
    return isinstance(error, psycopg.errors.ConnectionTimeout) or "timeout" in str(error)


def _what(error: psycopg.Error) -> str:
    """What is wrong, without what libpq says of users and hosts."""
    if _has_timed_out(error):
        return f"accepts connections and does not answer within {PATIENCE:.0f} s"
    if "authentication failed" in str(error):
        return "refuses the credentials"
    return f"does not answer: {type(error).__name__}"
