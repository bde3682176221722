"""The one table of PostgreSQL's errors: which kind a SQLSTATE is, and what follows from the kind.

The kind is read from the code alone, never from words, which the server translates. Messages name the code and its
condition: the server's own words may quote rows.
"""

import time
from collections.abc import Mapping
from enum import StrEnum

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from citadel_common.errors import (
    CitadelError,
    StoreBusy,
    StoreConflict,
    StoreFailed,
    StoreFull,
    StoreMisconfigured,
    StoreRejected,
    StoreUnavailable,
)
from citadel_common.stores.postgres_refusals import sqlstate_of_refusal
from citadel_common.telemetry import NULL_METRICS, Metrics, names

log = structlog.get_logger(__name__)
QUIET = 10.0
"""Seconds until a failure of the same code is logged again: a full disk is not to be filled with logs."""


class Kind(StrEnum):
    """What an error of PostgreSQL says about the next try."""

    AWAY = "away"
    """Down, starting, stopping or a standby: the same transaction succeeds later, on this server or another."""
    BUSY = "busy"
    """Out of connections, memory or time: it succeeds when others are done."""
    FULL = "full"
    """The disk is full: it succeeds when somebody has made room."""
    CONFLICT = "conflict"
    """Another transaction was in the way: it succeeds when it is repeated at once."""
    MISCONFIGURED = "misconfigured"
    """A right, a table or a file is missing or damaged: it succeeds when a person has mended that."""
    FAILED = "failed"
    """A defect, of the server or of Citadel, or an unknown code: it may succeed, or never."""
    REJECTED = "rejected"
    """The values are at fault: it never succeeds with them."""


CLASSES: Mapping[str, Kind] = {
    "08": Kind.AWAY,  # connection exceptions
    "22": Kind.REJECTED,  # data exceptions
    "23": Kind.REJECTED,  # integrity constraints
    "28": Kind.MISCONFIGURED,  # authorization
    "3D": Kind.MISCONFIGURED,  # database
    "3F": Kind.MISCONFIGURED,  # schema
    "40": Kind.CONFLICT,  # transaction rollback
    "42": Kind.MISCONFIGURED,  # rights; tables, columns, functions that are missing
    "44": Kind.REJECTED,  # check options of views
    "53": Kind.BUSY,  # insufficient resources
    "54": Kind.REJECTED,  # program limits
    "55": Kind.BUSY,  # objects in another state
    "57": Kind.AWAY,  # operator intervention
    "58": Kind.MISCONFIGURED,  # errors outside PostgreSQL: files
    "F0": Kind.MISCONFIGURED,  # configuration file
}
CODES: Mapping[str, Kind] = {
    "0A000": Kind.CONFLICT,  # a prepared statement whose table a migration has changed
    "25006": Kind.AWAY,  # a standby
    "25P03": Kind.AWAY,  # the transaction was idle for too long: the connection is closed
    "25P04": Kind.BUSY,  # transaction_timeout
    "26000": Kind.CONFLICT,  # a prepared statement that is on another server connection of a pooler
    "40002": Kind.REJECTED,  # an integrity constraint
    "40003": Kind.AWAY,  # it is not known whether the statement is done
    "42P05": Kind.CONFLICT,  # as 26000
    "53100": Kind.FULL,
    "55006": Kind.CONFLICT,  # object in use
    "55P02": Kind.MISCONFIGURED,
    "55P03": Kind.CONFLICT,  # lock_timeout
    "57014": Kind.BUSY,  # statement_timeout
    "57P04": Kind.MISCONFIGURED,  # the database was dropped
    "72000": Kind.CONFLICT,  # snapshot too old
    "XX001": Kind.MISCONFIGURED,  # data corrupted
    "XX002": Kind.MISCONFIGURED,  # index corrupted
}
"""Codes of another kind than their class; see https://www.postgresql.org/docs/current/errcodes-appendix.html."""
ERRORS: Mapping[Kind, type[CitadelError]] = {
    Kind.AWAY: StoreUnavailable,
    Kind.BUSY: StoreBusy,
    Kind.FULL: StoreFull,
    Kind.CONFLICT: StoreConflict,
    Kind.MISCONFIGURED: StoreMisconfigured,
    Kind.FAILED: StoreFailed,
    Kind.REJECTED: StoreRejected,
}
WORDS: Mapping[Kind, str] = {
    Kind.AWAY: "PostgreSQL does not answer",
    Kind.BUSY: "PostgreSQL has no room for this now",
    Kind.FULL: "the database's disk is full",
    Kind.CONFLICT: "another transaction of PostgreSQL was in the way",
    Kind.MISCONFIGURED: "PostgreSQL refuses Citadel's statements",
    Kind.FAILED: "PostgreSQL fails",
    Kind.REJECTED: "PostgreSQL cannot store this",
}


def kind_of_code(sqlstate: str) -> Kind:
    """Return the kind of a SQLSTATE; one that nobody knows is a failure."""
    return CODES.get(sqlstate) or CLASSES.get(sqlstate[:2], Kind.FAILED)


def sqlstate_of(error: psycopg.Error) -> str | None:
    """Return the SQLSTATE of an error; None where the server said nothing."""
    return error.diag.sqlstate or error.sqlstate or sqlstate_of_refusal(error)


def kind_of(error: psycopg.Error) -> Kind:
    """Return the kind of an error, of the server, of libpq or of the pool."""
    if (sqlstate := sqlstate_of(error)) is not None:
        return kind_of_code(sqlstate)
    if isinstance(error, PoolTimeout):
        return Kind.BUSY
    if isinstance(error, psycopg.DataError):
        return Kind.REJECTED
    return Kind.AWAY if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) else Kind.FAILED


def described(error: psycopg.Error) -> str:
    """Return code and condition of an error, or its class, and the object that it names; no words of the server."""
    sqlstate = sqlstate_of(error)
    if sqlstate is None:
        return type(error).__name__
    try:
        condition = psycopg.errors.lookup(sqlstate).__name__
    except KeyError:
        condition = "unknown"
    objects = error.diag.constraint_name or error.diag.table_name
    return f"{condition}, SQLSTATE {sqlstate}" + (f", {objects}" if objects else "")


class Failures:
    """Turns errors of one database into Citadel's, counts and logs them; thread-safe.

    Args:
        metrics: Counts the failures by kind.
    """

    def __init__(self, metrics: Metrics = NULL_METRICS) -> None:
        self._metrics = metrics
        self._logged: dict[str, float] = {}
        self._connecting: psycopg.Error | None = None
        self._full_until = 0.0

    def connected(self) -> None:
        """Record that a connection was opened."""
        self._connecting = None

    def not_connected(self, error: psycopg.Error) -> None:
        """Record why no connection could be opened: the pool itself says only that none came in time."""
        self._connecting = error

    @property
    def is_full(self) -> bool:
        """Return whether the disk was full a moment ago."""
        return time.monotonic() < self._full_until

    def of(self, error: psycopg.Error) -> CitadelError:
        """Return Citadel's error for one of psycopg, which has been counted and logged then."""
        if isinstance(error, PoolTimeout) and self._connecting is not None:
            error = self._connecting
        kind, what = kind_of(error), described(error)
        self._metrics.count(names.POSTGRES_FAILURES, 1, kind=kind.value)
        if kind is Kind.FULL:
            self._full_until = time.monotonic() + QUIET
        if time.monotonic() > self._logged.get(what, 0.0) + QUIET:
            self._logged[what] = time.monotonic()
            log.warning("postgres_failed", kind=kind.value, sqlstate=sqlstate_of(error), error=what)
        return ERRORS[kind](f"{WORDS[kind]}: {what}")
