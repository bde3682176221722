"""Migrations as files: SQL that one transaction applies, or indexes that are built beside running traffic."""

import importlib.resources
import importlib.resources.abc
import re
from dataclasses import dataclass

PACKAGE = "citadel_orchestration.db"
_COMMENT = re.compile(r"--.*$", re.MULTILINE)
_CONCURRENTLY = re.compile(r"\bCONCURRENTLY\b")
_INDEX = re.compile(r"CREATE (UNIQUE )?INDEX CONCURRENTLY (\w+) ON (\w+)\s*(.+)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Index:
    """An index that is built without holding up writes to its table.

    Attributes:
        name: Its name.
        table: Its table, in Citadel's schema.
        unique: Whether values are unique.
        rest: SQL after the table's name: method, columns, condition.
    """

    name: str
    table: str
    unique: bool
    rest: str


def available() -> list[str]:
    """Return the names of all migrations, in order."""
    return sorted(entry.name for entry in _folder().iterdir() if entry.name.endswith(".sql"))


def text_of(name: str) -> str:
    """Return the SQL of a migration."""
    return _folder().joinpath(name).read_text(encoding="utf-8")


def indexes_in(text: str) -> list[Index]:
    """Return the indexes that a migration builds concurrently; none where a transaction applies the migration.

    Raises:
        ValueError: It holds another statement beside them, which no transaction would protect.
    """
    plain = _COMMENT.sub("", text)
    if not _CONCURRENTLY.search(plain):
        return []
    return [_index(statement.strip()) for statement in plain.split(";") if statement.strip()]


def _index(statement: str) -> Index:
    found = _INDEX.fullmatch(statement)
    if found is None:
        raise ValueError(f"a migration that builds indexes concurrently does nothing else: {statement}")
    unique, name, table, rest = found.groups()
    return Index(name=name, table=table, unique=unique is not None, rest=rest)


def _folder() -> "importlib.resources.abc.Traversable":
    return importlib.resources.files(PACKAGE).joinpath("migrations")
