"""Each SQLSTATE of PostgreSQL has one kind, and its error says no word of the server."""

import psycopg
import pytest
from psycopg import errors
from psycopg_pool import PoolTimeout

from citadel_common.errors import CitadelError, StoreRejected, StoreUnavailable
from citadel_common.stores.postgres_errors import ERRORS, Failures, Kind, kind_of, kind_of_code
from citadel_contracts.errors import KINDS

KNOWN = [code for cls in vars(errors).values() if isinstance(code := getattr(cls, "sqlstate", None), str)]
WORDS = "Key (name)=(secret) already exists"


def test_every_code_that_psycopg_knows_has_an_error_of_its_kind():
    assert len(KNOWN) > 200
    for code in KNOWN:
        assert KINDS[ERRORS[kind_of_code(code)].code]


@pytest.mark.parametrize(
    ("codes", "kind"),
    [
        ("08000 08006 08P01 25006 25P03 40003 57P01 57P02 57P03 57P05", Kind.AWAY),
        ("25P04 53000 53200 53300 53400 55000 57014", Kind.BUSY),
        ("53100", Kind.FULL),
        ("0A000 26000 40001 40P01 42P05 55006 55P03", Kind.CONFLICT),
        ("28P01 3D000 3F000 42501 42703 42883 42P01 57P04 58030 58P01 F0000 XX001 XX002", Kind.MISCONFIGURED),
        ("22001 22003 22021 22P05 23503 23505 23514 40002 44000 54000 54001", Kind.REJECTED),
        ("25P02 P0001 XX000 HV000 ZZZZZ", Kind.FAILED),
    ],
)
def test_kinds(codes, kind):
    assert {code: kind_of_code(code) for code in codes.split()} == dict.fromkeys(codes.split(), kind)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (psycopg.OperationalError("consuming input failed: server closed the connection unexpectedly"), Kind.AWAY),
        (psycopg.InterfaceError("the connection is closed"), Kind.AWAY),
        (psycopg.OperationalError('connection failed: FATAL:  database "x" does not exist'), Kind.MISCONFIGURED),
        (psycopg.OperationalError("connection failed: FATAL:  sorry, too many clients already"), Kind.BUSY),
        (psycopg.OperationalError("FATAL:  remaining connection slots are reserved for roles with"), Kind.BUSY),
        (psycopg.OperationalError("FATAL:  the database system is not yet accepting connections"), Kind.AWAY),
        (psycopg.OperationalError("FATAL: no more connections allowed (max_client_conn)"), Kind.BUSY),
        (PoolTimeout("couldn't get a connection after 10.00 sec"), Kind.BUSY),
        (psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes"), Kind.REJECTED),
        (psycopg.ProgrammingError("the query has 2 placeholders but 1 parameters were passed"), Kind.FAILED),
    ],
)
def test_errors_without_a_code_have_kinds_too(error, kind):
    assert kind_of(error) is kind


def test_an_error_names_code_and_condition_and_quotes_nothing():
    error = Failures().of(errors.UniqueViolation(WORDS))
    assert isinstance(error, StoreRejected)
    assert error.message == "PostgreSQL cannot store this: UniqueViolation, SQLSTATE 23505"


def test_a_pool_without_connections_says_why_none_could_be_opened():
    failures = Failures()
    failures.not_connected(psycopg.OperationalError("FATAL:  sorry, too many clients already"))
    assert "SQLSTATE 53300" in failures.of(PoolTimeout("no connection in time")).message
    failures.connected()
    assert "SQLSTATE" not in failures.of(PoolTimeout("no connection in time")).message


def test_only_what_never_succeeds_is_not_waited_for():
    waited_for = {kind for kind, cls in ERRORS.items() if issubclass(cls, StoreUnavailable)}
    assert set(Kind) - waited_for == {Kind.REJECTED}
    assert all(issubclass(cls, CitadelError) for cls in ERRORS.values())
