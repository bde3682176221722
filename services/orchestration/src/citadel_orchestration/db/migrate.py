"""Versioned migrations at the start of a process, or by a command: the database becomes new enough, or says why not.

A migration only adds tables, columns and functions: an older version keeps working during a rolling update. The role
that runs may own nothing: then the owner migrates before it starts.
"""

import contextlib
import time
from collections.abc import Callable

import psycopg
import structlog
from pydantic import SecretStr

from citadel_common.errors import StoreUnavailable
from citadel_common.settings.common import WrongSetting, refuse
from citadel_common.settings.postgres import StoredSettings
from citadel_common.stores.db import PostgresConnection, open_connection
from citadel_common.stores.postgres_refusals import refusal_of, unsupported
from citadel_common.stores.postgres_target import PostgresTarget
from citadel_orchestration.db import schema
from citadel_orchestration.db.migration_runner import PATIENCE, SETTINGS, MigrationRunner, missing

log = structlog.get_logger(__name__)
LOCK_PATIENCE = 600.0
"""Seconds that a migration waits for another process that migrates, and for locks on tables."""
RUN_DSN, OWNER_DSN = "CITADEL_POSTGRES_DSN", "CITADEL_POSTGRES__MIGRATION_DSN"
AS_OWNER = f"run `python -m citadel_orchestration.migrate` with the tables' owner in {OWNER_DSN}"


def migrate(
    dsn: str, *, search_path: str | None = None, grant_to: str | None = None, patience: float = LOCK_PATIENCE
) -> list[str]:
    """Bring the database to the newest version; return the names of the migrations applied.

    Args:
        dsn: Address of PostgreSQL, with a role that may create tables.
        search_path: Schemas; the first one is created if it is missing.
        grant_to: Role that gets what a running Citadel needs.
        patience: Seconds to wait for another process that migrates, and for the locks of each migration.

    Raises:
        StoreUnavailable: The patience is over; what has been applied stays applied.
        psycopg.Error: The database does not answer, or refuses.
        WrongSetting: Citadel cannot use the database, or another program's tables are in the way.
    """
    target = PostgresTarget.of(
        SecretStr(dsn), name="migrate", search_path=search_path, connect_timeout=10, settings=SETTINGS
    )
    with open_connection(target, patience=PATIENCE) as connection:
        _check(connection)
        return MigrationRunner(target, grant_to=grant_to, patience=patience).run(connection)


def ensure_migrated(settings: StoredSettings, *, patience: float = LOCK_PATIENCE) -> None:
    """Check that the database is new enough and that the role may use it; migrate if it must and may.

    Raises:
        StoreUnavailable: Locks have been in the way for `patience` seconds.
        psycopg.Error: The database does not answer.
        WrongSetting: It can be used only after somebody has changed something.
    """
    postgres = settings.postgres
    target = PostgresTarget.of(settings.postgres_dsn, name="start", search_path=postgres.search_path, timeout=60)
    if _is_behind(target):
        owner = (settings.migration_dsn or settings.direct_dsn or settings.postgres_dsn).get_secret_value()
        try:
            migrate(owner, search_path=postgres.search_path, grant_to=postgres.grant_to, patience=patience)
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidSchemaName) as error:
            name = RUN_DSN if postgres.migration_dsn is None else OWNER_DSN
            reason = f"the database needs a migration that this role may not make ({error.diag.message_primary})"
            raise WrongSetting(name, f"{reason}; {AS_OWNER}") from None
    _check_role(target)


def _is_behind(target: PostgresTarget) -> bool:
    with open_connection(target, patience=PATIENCE) as connection:
        _check(connection)
        return bool(missing(connection, target))


def _check_role(target: PostgresTarget) -> None:
    with open_connection(target, patience=PATIENCE) as connection, connection.begin():
        lacking = schema.lacking_rights(connection)
    if lacking:
        reason = f"the role may not read and write {', '.join(lacking)}"
        raise WrongSetting(RUN_DSN, f"{reason}; {AS_OWNER} and the option --grant-to ROLE")


def _check(connection: PostgresConnection) -> None:
    if problem := unsupported(connection):
        raise WrongSetting(RUN_DSN, problem)


def migrate_patiently(settings: StoredSettings, *, patience: float = 120.0) -> None:
    """Wait for PostgreSQL, for `patience` seconds at most, and see that it is at the newest version.

    Raises:
        StoreUnavailable: It did not come up in time.
        WrongSetting: It can be used only after somebody has changed something.
    """
    _patiently(lambda: ensure_migrated(settings, patience=patience), patience, RUN_DSN)


def refuse_unusable_schema(settings: StoredSettings) -> None:
    """End the process with status 78 if the database answers and cannot be used; migrate it if it must and may.

    A database that does not answer is left to the server's own start, which waits for it.
    """
    try:
        with contextlib.suppress(StoreUnavailable):
            _patiently(lambda: ensure_migrated(settings, patience=0.0), 0.0, RUN_DSN)
    except WrongSetting as error:
        refuse(str(error))


def migrate_as_owner(settings: StoredSettings, *, patience: float, grant_to: str | None = None) -> None:
    """Wait for PostgreSQL, for `patience` seconds at most, and migrate it as the owner that the settings name.

    Raises:
        StoreUnavailable: It did not come up in time.
        WrongSetting: A setting cannot work.
        psycopg.Error: PostgreSQL refuses a statement.
    """
    owner, path = settings.migration_dsn, settings.postgres.search_path
    role = grant_to or settings.postgres.grant_to
    dsn = (owner or settings.direct_dsn or settings.postgres_dsn).get_secret_value()
    name = OWNER_DSN if owner else RUN_DSN
    _patiently(lambda: migrate(dsn, search_path=path, grant_to=role), patience, name)


def _patiently(attempt: Callable[[], object], patience: float, name: str) -> None:
    """Try until PostgreSQL answers; `name` is the setting of its address."""
    end, pause = time.monotonic() + patience, 0.2
    while True:
        try:
            attempt()
        except psycopg.Error as error:
            _give_up_if_useless(error, name, is_late=time.monotonic() > end)
            log.warning("waiting_for_postgres", error=type(error).__name__)
        else:
            return
        time.sleep(pause)
        pause = min(3.0, pause * 2)


def _give_up_if_useless(error: psycopg.Error, name: str, *, is_late: bool) -> None:
    if problem := refusal_of(error):
        raise WrongSetting(name, problem) from None
    if not isinstance(error, psycopg.OperationalError | psycopg.errors.ReadOnlySqlTransaction):
        raise error
    if is_late:
        raise StoreUnavailable(f"PostgreSQL does not answer; check {name}: {error}") from None
