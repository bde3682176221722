"""The schema that holds Citadel's objects, and the rights of the role that runs on them.

It is the first schema of the search path. Objects of the same names in later schemas are not Citadel's.
"""

import re
from typing import Any

import psycopg
from psycopg import sql

from citadel_common.settings.common import WrongSetting
from citadel_common.stores.db import PostgresConnection
from citadel_common.stores.postgres_target import PostgresTarget

MIGRATIONS = sql.Identifier("migrations")
SEARCH_PATH = "CITADEL_POSTGRES__SEARCH_PATH"
TABLES = ("runs", "steps", "payloads", "events", "signals", "accepted_tasks", "resources", "slots")
WRITTEN = ("SELECT", "INSERT", "UPDATE", "DELETE")
_CREATE = "CREATE TABLE IF NOT EXISTS migrations (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
_COLUMNS = """
SELECT nspname, array_agg(attname::text ORDER BY attname) FROM pg_class
JOIN pg_namespace ON pg_namespace.oid = relnamespace
JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
WHERE relname = 'migrations' AND nspname = ANY(current_schemas(false)) GROUP BY nspname
"""
_OURS = ["applied_at", "name"]
_LACKING = """
SELECT array_agg(name) FROM unnest(%(tables)s::text[]) AS name
WHERE to_regclass(name) IS NULL OR EXISTS (
    SELECT FROM unnest(%(rights)s::text[]) AS wanted WHERE NOT has_table_privilege(to_regclass(name), wanted))
"""


def make(connection: PostgresConnection, target: PostgresTarget) -> None:
    """Create the schema, if the search path names one that is missing, and the table of migrations.

    Raises:
        psycopg.Error: The role may not.
        WrongSetting: Another program's tables are in the way, or Citadel's are in a later schema.
    """
    if of(connection, target) is None:
        named = _first_of(target)
        if named is not None and not _exists(connection, named):
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(named)))
        connection.execute(_CREATE)


def of(connection: PostgresConnection, target: PostgresTarget) -> sql.Identifier | None:
    """Return the table of migrations, qualified by Citadel's schema; None if there is none yet.

    Raises:
        WrongSetting: Another program's tables are in the way, or Citadel's are in a later schema.
    """
    columns: dict[str, list[str]] = dict(connection.execute(_COLUMNS).fetchall())
    [(current,)] = connection.execute("SELECT current_schema()::text").fetchall()
    named = _first_of(target)
    if named is not None and named != current and not _exists(connection, named):
        return None
    if current in columns and columns[current] != _OURS:
        problem = f"schema {current} holds another program's table `migrations`; give Citadel a schema of its own"
        raise WrongSetting(SEARCH_PATH, problem)
    elsewhere = [name for name, found in columns.items() if found == _OURS and name != current]
    if current not in columns and elsewhere and named is None:
        problem = f"Citadel's tables are in schema {elsewhere[0]}, and the role's first schema is {current}; name one"
        raise WrongSetting(SEARCH_PATH, problem)
    return sql.Identifier(current, "migrations") if current in columns else None


def applied(connection: PostgresConnection, migrations: sql.Identifier) -> set[str]:
    """Return the names of the migrations that the database has had."""
    return {name for (name,) in connection.execute(sql.SQL("SELECT name FROM {}").format(migrations))}


def grant(connection: PostgresConnection, role: str) -> None:
    """Give a role what a running Citadel needs, and no more.

    Raises:
        psycopg.Error: The role is not known, or the objects are not this role's.
    """
    [(current,)] = connection.execute("SELECT current_schema()::text").fetchall()
    names = {"schema": sql.Identifier(current), "role": sql.Identifier(role), "migrations": MIGRATIONS}
    tables = sql.SQL(", ").join(map(sql.Identifier, TABLES))
    rights = sql.SQL(", ").join(map(sql.SQL, WRITTEN))
    connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {schema} TO {role}").format(**names))
    connection.execute(sql.SQL("GRANT SELECT ON {migrations} TO {role}").format(**names))
    connection.execute(sql.SQL("GRANT {} ON {} TO {}").format(rights, tables, names["role"]))


def lacking_rights(connection: PostgresConnection) -> list[str]:
    """Return the tables that the role may not read and write."""
    values: dict[str, Any] = {"tables": list(TABLES), "rights": list(WRITTEN)}
    [(lacking,)] = connection.execute(_LACKING, values).fetchall()
    return list(lacking or ())


def _first_of(target: PostgresTarget) -> str | None:
    """Return the first schema of a configured search path; None if the role's own counts."""
    found = re.match(r'\s*(?:"((?:[^"]|"")+)"|([^\s,"]+))', target.settings.get("search_path", ""))
    if found is None:
        return None
    name = found[1].replace('""', '"') if found[1] else found[2].lower()
    return None if name == "$user" else name


def _exists(connection: "psycopg.Connection[Any]", name: str) -> bool:
    return connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", [name]).fetchone() is not None
